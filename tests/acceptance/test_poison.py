"""What is poisonous ends as a dead letter, and takes nothing else along: no worker, no neighbour, no batch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from callgate.adapters.postgres_ledger import PostgresLedger
from callgate.db.session import PostgresSession
from callgate.domain.ledger import CallKey, CallState, Reserved
from callgate.domain.retry import LOST
from tests.acceptance.harness import CHECKOUT, Deployment, Process, clean_environ, until
from tests.acceptance.poisoned_worker import ARGV, POISON
from tests.contract.harness import a_loss, a_reserve
from worker.simulator import Kind, Match, Rule, Step

PATIENCE_S = 60.0
FRAGILE = """
# Its attempts are over, or lost, within seconds, and it may be tried often.
[call_types.fragile]
max_output_tokens_default = 50
deadline_s = 3
attempts_max = 9
lost_max = 3
retry_wait_s = 0.1
retry_wait_max_s = 0.2
retry_after_max_s = 0.2
"""


def a_worker(deployment: Deployment, tmp_path: Path, **changes: str) -> Process:
    """The only worker, which dies over `POISON`."""
    deployment.stop_workers()
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(Path(deployment.environ["CALLGATE_CATALOGUE"]).read_text() + FRAGILE)
    changes = {"CALLGATE_CATALOGUE": str(catalogue), **changes}
    return deployment.start("worker", ARGV, **changes).until_it_says("ready.")


def lose(deployment: Deployment, key: CallKey) -> None:
    """Claim a queued call, and vanish: it is due to be tried again, as a suspect."""
    with closing(PostgresSession(deployment.services.database_url)) as session:
        ledger = PostgresLedger(session)
        (reserved,) = ledger.reserve([a_reserve(key)])
        assert isinstance(reserved, Reserved)
        ledger.settle([a_loss(reserved.ref)])


def children_of(worker: Process) -> list[int]:
    """The processes in which a worker runs suspects."""
    return [int(pid) for pid in re.findall(r"suspect_runs_alone .* pid=(\d+)", worker.output())]


def callgate(deployment: Deployment, *words: str) -> Any:
    """Run a command of the real CLI; what it prints as JSON."""
    done = subprocess.run(  # noqa: S603 - the argument list is ours
        [sys.executable, "-m", "callgate", *words],
        cwd=CHECKOUT, env=clean_environ(deployment.environ), capture_output=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def statuses(deployment: Deployment, org: str) -> list[list[str]]:
    """The attempts of each call of an organisation."""
    sql = (
        "SELECT array_agg(status ORDER BY attempt) FROM ai_call_log WHERE org_id = :org"
        " GROUP BY call_id"
    )
    return [row[0] for row in deployment.rows(sql, org=org)]


def test_a_call_that_kills_its_workers_dies_alone(deployment: Deployment, tmp_path: Path) -> None:
    """Its first victim takes neighbours along once; after that it dies in processes of its own, and then for good."""
    first = a_worker(deployment, tmp_path)
    neighbours, bystanders = deployment.org(), deployment.org()
    deployment.provider.script(
        [
            Rule(match=Match(text="neighbour"), reply=[Step(kind=Kind.HANG)] * 6 + [Step(text="alive")]),
            Rule(match=Match(text="bystander"), reply=[Step(latency_s=12, text="unharmed")]),
        ]
    )  # fmt: skip

    def request(org: str, text: str, call_type: str = "fragile"):  # type: ignore[no-untyped-def]
        return deployment.request(org, text, call_type=call_type)

    innocent = deployment.client.submit_many(
        [request(neighbours, f"neighbour {n}") for n in range(6)]
    )
    until(lambda: deployment.provider.counts().in_flight == 6)
    poison = deployment.client.submit(request(deployment.org(), POISON))
    assert first.wait() == -signal.SIGKILL

    second = a_worker(deployment, tmp_path)
    unharmed = deployment.client.submit_many(
        [request(bystanders, f"bystander {n}", "answer") for n in range(3)]
    )
    until(lambda: poison.state is CallState.DEAD, PATIENCE_S)

    assert [h.get(timeout=PATIENCE_S).text for h in innocent] == ["alive"] * 6
    assert [h.get(timeout=PATIENCE_S).text for h in unharmed] == ["unharmed"] * 3
    assert statuses(deployment, neighbours) == [["unknown", "succeeded"]] * 6
    assert statuses(deployment, bystanders) == [["succeeded"]] * 3
    assert second.is_alive()
    fingerprint = LOST.fingerprint("sim")
    (dead,) = callgate(deployment, "dead", "list", "--fingerprint", fingerprint, "--json")["calls"]
    assert dead["task_id"] == poison.task_id
    assert (dead["error"]["code"], dead["attempt"], dead["lost_attempts"]) == ("worker_lost", 3, 3)


def test_a_drain_waits_for_a_suspect(deployment: Deployment, tmp_path: Path) -> None:
    """SIGTERM to worker and child in the middle of an isolated call: it is answered and recorded all the same."""
    deployment.stop_workers()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=3, text="in time")])])
    suspect = deployment.client.submit(deployment.request(org))
    lose(deployment, suspect.key)
    worker = deployment.worker()
    until(lambda: deployment.provider.counts().in_flight == 1, PATIENCE_S)
    (child,) = children_of(worker)

    os.kill(child, signal.SIGTERM)
    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    assert not Path(f"/proc/{child}").exists()
    lost, answered = deployment.attempts(org)
    assert lost.status == "unknown"
    assert answered.status in ("answered", "succeeded")
    deployment.worker()
    assert suspect.get(timeout=PATIENCE_S).text == "in time"
