"""
A tenant uses every known attack against the others at the same time, for some seconds.

`tests/chaos/hostile.py` is the long form, in which a worker is also killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

from callgate.adapters.postgres.session import PostgresSession
from tests.chaos.attacker import KINDS, UNDER_WAY
from tests.chaos.hostile import POSTED_NANO_USD, RULES, SHARE_MIN
from tests.support.deployment import Deployment, Process
from tests.support.logins import a_client

QUIET_S, ATTACK_S = 2.5, 4.0
BATCH = 10
WAIT_MAX_S = 15.0


def test_other_organisations_keep_their_share_under_attack(
    deployment: Deployment, worker: Callable[..., Process], tmp_path: Path
) -> None:
    """Locks, undeliverable links, expensive schemas, compressed messages, huge prompts: their calls still run once."""
    process = worker()
    deployment.provider.script(RULES)
    others = [deployment.org(), deployment.org()]
    hostile = deployment.org()

    quiet = rate(deployment, others, QUIET_S)
    with attacked(deployment, hostile, tmp_path):
        attacked_rate = rate(deployment, others, ATTACK_S)

    assert attacked_rate >= SHARE_MIN * quiet
    assert process.is_alive()
    for org in others:
        rows = deployment.attempts(org)
        assert {(row.status, row.attempt, row.posted_nano_usd) for row in rows} == {
            ("succeeded", 1, POSTED_NANO_USD)
        }
    deployment.assert_audit_is_clean()
    # The test does not wait for the tenant's own calls: some are deferred for long.
    deployment.end_open_calls()


def rate(deployment: Deployment, orgs: list[str], seconds: float) -> float:
    """Calls per second of some organisations, submitted in small batches one after the other."""
    began, done = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        requests = [deployment.request(org) for org in orgs for _ in range(BATCH)]
        handles = deployment.client.submit_many(requests)
        done += len(list(deployment.client.as_completed(handles, timeout=WAIT_MAX_S)))
    return done / (time.monotonic() - began)


@contextmanager
def attacked(deployment: Deployment, org: str, folder: Path) -> Iterator[None]:
    """Run an attacker with its own login during the block, and assert that it tried every attack."""
    report, stop = folder / f"{uuid4()}.json", folder / "stop"
    owner = PostgresSession(deployment.services.database_url)
    with closing(owner), a_client(owner, org) as url:
        means = {
            "kinds": KINDS,
            "report": str(report),
            "stop": str(stop),
            "database_url": url,
            "broker_url": deployment.services.broker_url,
            "org": org,
        }
        attacker = deployment.python("attacker", ["-m", "tests.chaos.attacker", json.dumps(means)])
        try:
            attacker.until_it_says(UNDER_WAY)
            yield
        finally:
            stop.touch()
        assert attacker.wait() == 0, attacker.output()
    tried = {kind.partition(":")[0] for kind in json.loads(report.read_text())}
    assert tried == set(KINDS)
