"""One trial's world: servers, simulated provider, worker processes, client processes, and those who watch."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from callgate.domain.calls import AttemptRef, CallKey
from callgate.services.audit import audit
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import ReportedUsage, Rule, Simulator, Step, Uniform
from tests.chaos.evaluation import Arrival, Attempt, Batch, Evidence, links_owed
from tests.chaos.observers import BudgetObserver, LinkCollector
from tests.support.deployment import Deployment, until
from tests.support.forked_workers import Child, ForkServer

DEADLINE_S = 3.0
GRACE_S = 4.0
LEASE_S = 4.0
PATIENCE_S = 90.0
"""How long everything may take to end after a fault; far more than lease and back-offs need, for machines are slow."""
TIGHT_HOLDS = 2
"""Calls the tight organisation's limit fits at their worst case, so that they wait for each other."""
USAGE = ReportedUsage(prompt_tokens=50, completion_tokens=30)
"""Dear enough that the tight organisation's limit is spent within the shortest load, and the rest is rejected."""
ANSWER = Step(latency_s=Uniform(low_s=0.05, high_s=0.6), usage=USAGE)

CATALOGUE = """
[providers.sim]
base_url = "{base_url}"
needs_key = false

[default]
max_output_tokens_default = 50
deadline_s = 3
# Nothing may die of being lost often: what is under test is that nothing is lost.
attempts_max = 100
worker_losses_max = 100
unknown_attempts_max = 100
unknown_wait_s = 0.1
retry_wait_s = 0.1
retry_wait_max_s = 0.3

[[prices]]
provider = "sim"
model = "sim-1"
input_usd_per_million = 1
output_usd_per_million = 2
source = "chaos"
as_of = 2026-11-01
"""
ENVIRON = {
    "CALLGATE_LEDGER_TIMEOUT_S": "1.9",
    "CALLGATE_WORKER__ATTEMPT_GRACE_S": str(GRACE_S),
    "CALLGATE_WORKER__PROCESS_LEASE_S": str(LEASE_S),
    "CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S": "20",
    "CALLGATE_WORKER__DUE_INTERVAL_S": "0.1",
    "CALLGATE_WORKER__SWEEP_INTERVAL_S": "0.3",
    "CALLGATE_WORKER__SWEEP_MIN_AGE_S": "0.3",
}

UNMARKED = "submission WHERE link IS NOT NULL AND delivered_at IS NULL"
UNKNOWN_BELOW_HOLD = (
    "ai_call_log WHERE status = 'unknown' AND posted_nano_usd IS DISTINCT FROM hold_nano_usd"
)
UNHEEDED = "ai_call_log WHERE reply IS NOT NULL AND status <> 'succeeded'"
"""The simulator answers well, or not at all."""
POSTED_AGAIN = "chaos.witness JOIN ai_call_log USING (attempt_id) WHERE what = 'again'"
OPEN = "llm_call WHERE state IN ('queued', 'running', 'waiting')"


class Environment:
    """What a fault may touch, and what the judgement needs."""

    def __init__(
        self,
        deployment: Deployment,
        fork_server: ForkServer,
        budgets: BudgetObserver,
        links: LinkCollector,
        seed: int,
    ) -> None:
        self.deployment = deployment
        self.fork_server = fork_server
        self.budgets = budgets
        self.links = links
        self.dice = random.Random(seed)  # noqa: S311 - chooses moments and victims
        self.workers: list[Child] = []
        self.clients: list[tuple[Child, Path]] = []
        self.stop = deployment.folder / f"stop-{uuid4().hex[:8]}"
        self.hit_at: datetime | None = None
        self.notes: list[str] = []
        """What the fault has to say about how it was done."""
        self.hostile = ""
        """An organisation to which nothing is promised: it attacks the others."""

    @property
    def services(self) -> DevServers:
        """The servers."""
        return self.deployment.services

    # Processes.

    def worker(self, point: str | None = None, passes: int = 1) -> Child:
        """Start a worker; with a point, one that dies there."""
        spec = {} if point is None else {"point": point, "passes": passes}
        child = self.fork_server.fork(
            "tests.chaos.killable_worker", self.deployment.environ, **spec
        )
        self.workers.append(child)
        return child

    def fleet(self, size: int) -> None:
        """Start workers, and return when they take calls."""
        for child in [self.worker() for _ in range(size)]:
            child.until_it_says("ready.")

    def living_workers(self) -> list[Child]:
        """Those that were not killed."""
        return [child for child in self.workers if child.is_alive()]

    def client(self, orgs: Sequence[str], **changes: Any) -> Child:
        """Start a client process; see `tests.chaos.client`."""
        report = self.deployment.folder / f"client-{uuid4().hex[:8]}.json"
        spec = {
            "report": str(report),
            "stop": str(self.stop),
            "give_up_after_s": PATIENCE_S,
            "seconds_max": 2 * PATIENCE_S,
            "total_max": 10**9,
            "orgs": list(orgs),
            "call_types": ["answer"],
            "batch": 6,
            "pause_s": 0.15,
            "repeat": 2,
            "distinct": 10**9,
            "offset": 0,
            "links": True,
            **changes,
        }
        child = self.fork_server.fork("tests.chaos.client", self.deployment.environ, **spec)
        self.clients.append((child, report))
        return child

    def batches(self) -> list[Batch]:
        """Wait for the clients, and read what they report."""
        for child, _ in self.clients:
            code = child.wait(3 * PATIENCE_S)
            assert code == 0, f"a client ended with {code}:\n{child.output()}"
        reports = [json.loads(report.read_text()) for _, report in self.clients]
        return [
            Batch(batch["document"], [(task, outcome) for task, outcome in batch["outcomes"]])
            for report in reports
            for batch in report
        ]

    # Moments.

    def now(self) -> datetime:
        """The ledger's time."""
        moment: datetime = self.deployment.rows("SELECT clock_timestamp()")[0][0]
        return moment

    def hit(self) -> None:
        """Say that the harm is done now: from here recovery is timed. Without it, from the end of the fault."""
        self.hit_at = self.now()

    def pause(self, low_s: float, high_s: float) -> None:
        """Let the load run until a random moment."""
        time.sleep(self.dice.uniform(low_s, high_s))

    def succeeded(self) -> int:
        """How many calls have succeeded."""
        sql = "SELECT count(*) FROM llm_call WHERE state = 'succeeded'"
        return int(self.deployment.rows(sql)[0][0])

    def running(self) -> list[AttemptRef]:
        """The attempts that workers are at."""
        sql = "SELECT call_id, generation, attempt_id FROM llm_call WHERE state = 'running'"
        return [AttemptRef(CallKey(*key), attempt) for *key, attempt in self.deployment.rows(sql)]

    def until_it_flows(self) -> None:
        """Wait until calls succeed."""
        enough = self.succeeded() + 5
        until(lambda: self.succeeded() >= enough, PATIENCE_S, lambda: "no call succeeds")

    def until_in_flight(self, requests: int) -> None:
        """Wait until so many requests are at the provider at once."""
        counts = self.deployment.provider.counts
        until(lambda: counts().in_flight >= requests, PATIENCE_S, lambda: "nothing is in flight")

    def recovery_s(self, since: datetime, give_up_after_s: float = PATIENCE_S) -> float | None:
        """Wait until every call from before a moment has ended; return the seconds it took, None if too long."""
        sql = (
            "SELECT count(*) FROM llm_call"
            " WHERE state IN ('queued', 'running', 'waiting') AND created_at <= :since"
            " AND org_id <> :hostile"
        )
        give_up_at = time.monotonic() + give_up_after_s
        while self.deployment.rows(sql, since=since, hostile=self.hostile)[0][0]:
            if time.monotonic() > give_up_at:
                return None
            time.sleep(0.1)
        return (self.now() - since).total_seconds()

    # What was seen.

    def unknown(self) -> dict[str, float]:
        """Attempts that are UNKNOWN, or were: since when, in seconds since 1970."""
        sql = (
            "SELECT attempt_id::text, extract(epoch FROM min(at))::float8"
            " FROM chaos.witness WHERE what = 'unknown' GROUP BY attempt_id"
        )
        return dict(map(tuple, self.deployment.rows(sql)))

    def lost_by(self) -> set[int]:
        """The processes whose attempts were called lost."""
        sql = (
            "SELECT DISTINCT split_part(worker_id, ':', 2)::int"
            " FROM chaos.witness JOIN ai_call_log USING (attempt_id) WHERE what = 'lost'"
        )
        return {row[0] for row in self.deployment.rows(sql)}

    def count(self, what: str) -> int:
        """How many rows there are of something, but for those of a hostile organisation."""
        sql = f"SELECT count(*) FROM {what} AND org_id <> :hostile"  # noqa: S608
        return int(self.deployment.rows(sql, hostile=self.hostile)[0][0])

    def unfounded_ends(self, rich: str) -> list[str]:
        """Complain of calls that ended without a result though nothing kept them from one, and of broken workers."""
        sql = (
            "SELECT state, count(*) FROM llm_call WHERE org_id <> :hostile AND (state = 'dead'"
            " OR org_id = :rich AND state = 'rejected') GROUP BY state ORDER BY state"
        )
        rows = self.deployment.rows(sql, rich=rich, hostile=self.hostile)
        ended = [f"{count} calls are {state}" for state, count in rows]
        codes = {child.code for child in self.workers} - {None, 0, -signal.SIGKILL}
        return ended + [f"a worker ended with {code}" for code in sorted(codes)]

    def attempts(self) -> list[Attempt]:
        """Every row of `ai_call_log`."""
        unknown = self.unknown()
        sql = "SELECT attempt_id::text, call_id::text FROM ai_call_log"
        return [Attempt(*row, unknown.get(row[0])) for row in self.deployment.rows(sql)]

    def requests(self) -> list[Arrival]:
        """Every request that reached the provider."""
        booted_at_s = time.time() - time.monotonic()
        records = self.deployment.provider.requests().records
        return [Arrival(r.attempt_id, booted_at_s + r.started_s) for r in records]

    def calls(self) -> dict[str, str]:
        """State of every call by its task id."""
        sql = (
            "SELECT call_id || '.' || generation, state FROM llm_call"
            " WHERE org_id NOT IN ('filler', :hostile)"
        )
        return {row[0]: row[1] for row in self.deployment.rows(sql, hostile=self.hostile)}

    def overrun_nano_usd(self) -> int:
        """The greatest spent + held - limit: sampled all the time, noted by the database, and as it is now."""
        noted = "SELECT coalesce(max(nano_usd), 0) FROM chaos.witness WHERE what = 'overrun'"
        now = "SELECT max(spent_nano_usd + reserved_nano_usd - limit_nano_usd) FROM budget"
        passed = int(self.deployment.rows(noted)[0][0])
        return passed or max(self.budgets.overrun_nano_usd, self.deployment.rows(now)[0][0])

    def evidence(self, recover_s: float | None) -> Evidence:
        """Everything that was seen, once the clients have reported and no call is open."""
        batches = self.batches()
        self._until_all_is_done(batches)
        # A client of its own: the pooled connections of the other one may be older than the server.
        with self.deployment.open_client() as client:
            report = audit(client.operations.snapshot())
        return Evidence(
            batches=batches,
            requests=self.requests(),
            attempts=self.attempts(),
            calls=self.calls(),
            overrun_nano_usd=self.overrun_nano_usd(),
            drift_nano_usd=report.drift_nano_usd,
            is_clean=report.is_clean,
            unknown_below_hold=self.count(UNKNOWN_BELOW_HOLD),
            posted_again=self.count(POSTED_AGAIN),
            unheeded=self.count(UNHEEDED),
            told=self.links.told(),
            tellings_max=self.links.tellings_max(),
            unmarked=self.count(UNMARKED),
            recover_s=recover_s,
        )

    def _until_all_is_done(self, batches: Sequence[Batch]) -> None:
        """Wait, within bounds, until every call is settled, every link told and marked; or judge what is missing."""
        owed = links_owed(batches)
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            told = self.links.told()
            is_told = all(told.get(key, 0) >= n for key, n in owed.items())
            left = self.count(OPEN) or self.count(UNMARKED) or self.count(UNHEEDED)
            if is_told and not left:
                return
            time.sleep(0.05)


@contextmanager
def staged(
    services: DevServers, fork_server: ForkServer, folder: Path, seed: int = 0
) -> Iterator[Environment]:
    """A stage on these servers, whose ledger and broker are emptied; every process of it ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Simulator() as provider,
        Deployment(services, provider, folder, catalogue=CATALOGUE) as deployment,
        BudgetObserver(services.database_url) as budgets,
        LinkCollector(services.broker_url) as links,
    ):
        deployment.environ.update(ENVIRON)
        provider.script([Rule(reply=[ANSWER], seed=seed)])
        environment = Environment(deployment, fork_server, budgets, links, seed)
        try:
            yield environment
        finally:
            for child in [*environment.workers, *(child for child, _ in environment.clients)]:
                if child.is_alive():
                    child.kill()
