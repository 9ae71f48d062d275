"""The environment of one trial: servers, simulated provider, worker and client processes, and observers."""

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
from tests.chaos.evaluation import Batch, Observations, links_owed
from tests.chaos.limits import NO_LIMITS, Flow
from tests.chaos.mix import FORMS, INPUT_NANO_USD, OUTPUT_NANO_USD, TARGETS
from tests.chaos.observers import BudgetObserver, LinkCollector
from tests.chaos.records import Records
from tests.support.deployment import Deployment, until, with_addresses
from tests.support.forked_workers import Child, ForkServer
from tests.support.waiting import holds_within

DEADLINE_S = 3.0
GRACE_S = 4.0
LEASE_S = 4.0
END_MAX_S = 90.0
"""All calls must end within this time after a fault. It is long, because machines can be slow."""
USAGE = ReportedUsage(prompt_tokens=500, completion_tokens=30, reasoning_tokens=10)
"""The shortest load spends the limit of the tight organisation, so that further calls are rejected."""
POSTED_NANO_USD = 500 * INPUT_NANO_USD + 30 * OUTPUT_NANO_USD
"""The cost of `USAGE`."""
ANSWER = Step(latency_s=Uniform(low_s=0.05, high_s=0.6), usage=USAGE)

MAX_OUTPUT_TOKENS = 50

CATALOGUE = f"""
[default]
max_output_tokens_default = {MAX_OUTPUT_TOKENS}
deadline_s = 3
# Calls must not die of repeated worker losses: the trials check that none is lost.
attempts_max = 100
worker_losses_max = 100
unknown_attempts_max = 100
unknown_wait_s = 0.1
retry_wait_s = 0.1
retry_wait_max_s = 0.3
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

UNMARKED_LINKS = "submission WHERE link IS NOT NULL AND delivered_at IS NULL"
UNKNOWN_BELOW_HOLD = (
    "ai_call_log WHERE status = 'unknown' AND posted_nano_usd IS DISTINCT FROM hold_nano_usd"
)
UNUSED_REPLIES = "ai_call_log WHERE reply IS NOT NULL AND status <> 'succeeded'"
"""The answers of the simulator are always correct."""
POSTED_AGAIN = "chaos.observation JOIN ai_call_log USING (attempt_id) WHERE what = 'again'"
OPEN = "llm_call WHERE state IN ('queued', 'running', 'waiting')"


class Environment:
    """What faults use, and what the evaluation needs."""

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
        self.rng = random.Random(seed)  # noqa: S311 - for moments and victims
        self.workers: list[Child] = []
        self.clients: list[tuple[Child, Path]] = []
        self.stop = deployment.folder / f"stop-{uuid4().hex[:8]}"
        self.fault_at: datetime | None = None
        self.flow = NO_LIMITS
        self.targets: set[str] = set()
        """The entries of the catalogue that the clients name."""
        self.posted_nano_usd: int | None = POSTED_NANO_USD
        """What each success is posted at; None if that depends on the request."""
        self.records = Records(deployment)
        self.notes: list[str] = []
        """Remarks of the fault, for the output."""
        self.hostile = ""
        """The organisation that attacks the others; its calls are not evaluated."""

    @property
    def servers(self) -> DevServers:
        """Postgres and Valkey."""
        return self.deployment.services

    def limit(self, flow: Flow) -> None:
        """Have the provider enforce limits, and workers that start from now on declare some."""
        self.flow = flow
        self.deployment.provider.limit(flow.enforced)
        base_url = self.deployment.provider.base_url
        catalogue = with_addresses(CATALOGUE + flow.catalogue, base_url)
        Path(self.deployment.environ["CALLGATE_CATALOGUE"]).write_text(catalogue)

    def close_breakers(self) -> None:
        """Have the workers admit any number of calls, before the first succeeds."""
        for target in TARGETS.values():
            self.deployment.close_breaker(target.name, target.model)

    # Processes.

    def worker(self, point: str | None = None, passes: int = 1) -> Child:
        """Start a worker; with a point, one that kills itself there."""
        spec = {} if point is None else {"point": point, "passes": passes}
        child = self.fork_server.fork(
            "tests.chaos.killable_worker", self.deployment.environ, **spec
        )
        self.workers.append(child)
        return child

    def start_workers(self, count: int) -> None:
        """Start workers, and return when they are ready."""
        for child in [self.worker() for _ in range(count)]:
            child.until_it_says("ready.")
        # What is sent before a limit is declared does not count.
        declared = "SELECT digest FROM flow_catalogue"
        until(lambda: self.deployment.rows(declared), END_MAX_S, lambda: "nothing is declared")

    def living_workers(self) -> list[Child]:
        """Return the workers that are alive."""
        return [child for child in self.workers if child.is_alive()]

    def ready_workers(self) -> list[Child]:
        """Return the workers that are alive and take calls."""
        return [child for child in self.living_workers() if "ready." in child.output()]

    def client(self, orgs: Sequence[str], **changes: Any) -> Child:
        """Start a client process; see `tests.chaos.client`."""
        report = self.deployment.folder / f"client-{uuid4().hex[:8]}.json"
        spec = {
            "report": str(report),
            "stop": str(self.stop),
            "give_up_after_s": END_MAX_S,
            "seconds_max": 2 * END_MAX_S,
            "total_max": 10**9,
            "orgs": list(orgs),
            "call_types": ["answer"],
            "targets": list(TARGETS),
            "forms": list(FORMS),
            "batch": 6,
            "pause_s": 0.15,
            "repeat": 2,
            "distinct": 10**9,
            "offset": 0,
            "links": True,
            **changes,
        }
        self.targets.update(spec["targets"])
        child = self.fork_server.fork("tests.chaos.client", self.deployment.environ, **spec)
        self.clients.append((child, report))
        return child

    def batches(self) -> list[Batch]:
        """Wait for the clients, and return their reports."""
        for child, _ in self.clients:
            code = child.wait(3 * END_MAX_S)
            assert code == 0, f"a client ended with {code}:\n{child.output()}"
        reports = [json.loads(report.read_text()) for _, report in self.clients]
        return [
            Batch(batch["document"], [(task, outcome) for task, outcome in batch["outcomes"]])
            for report in reports
            for batch in report
        ]

    # Moments.

    def now(self) -> datetime:
        """Return the time of the ledger."""
        moment: datetime = self.deployment.rows("SELECT clock_timestamp()")[0][0]
        return moment

    def mark_fault(self) -> None:
        """Measure the recovery from now on, instead of from the end of the fault."""
        self.fault_at = self.now()

    def pause(self, low_s: float, high_s: float) -> None:
        """Sleep for a random time."""
        time.sleep(self.rng.uniform(low_s, high_s))

    def succeeded(self) -> int:
        """Return how many calls have succeeded."""
        sql = "SELECT count(*) FROM llm_call WHERE state = 'succeeded'"
        return int(self.deployment.rows(sql)[0][0])

    def running(self) -> list[AttemptRef]:
        """Return the running attempts."""
        sql = "SELECT call_id, generation, attempt_id FROM llm_call WHERE state = 'running'"
        return [AttemptRef(CallKey(*key), attempt) for *key, attempt in self.deployment.rows(sql)]

    def has_call(self, pid: int) -> bool:
        """Tell whether an attempt of a process has neither an answer nor expired."""
        sql = (
            "SELECT count(*) FROM ai_call_log"
            " WHERE status = 'dispatched' AND split_part(worker_id, ':', 2)::int = :pid"
        )
        return bool(self.deployment.rows(sql, pid=pid)[0][0])

    def until_calls_succeed(self) -> None:
        """Wait until five more calls have succeeded."""
        enough = self.succeeded() + 5
        until(lambda: self.succeeded() >= enough, END_MAX_S, lambda: "no call succeeds")

    def until_in_flight(self, requests: int) -> None:
        """Wait until this many requests are in flight at the provider."""
        counts = self.deployment.provider.counts
        until(
            lambda: counts().in_flight >= requests,
            END_MAX_S,
            lambda: (
                f"{counts().in_flight} requests are in flight, {self.count(OPEN)} calls are open"
            ),
        )

    def until_refused(self) -> None:
        """Wait until the provider has refused a request of each protocol."""

        def have_all() -> bool:
            return self.targets == {r.provider for r in self.records.requests() if r.is_refused}

        until(have_all, END_MAX_S, lambda: "not every protocol is refused")

    def recovery_s(self, since: datetime, give_up_after_s: float = END_MAX_S) -> float | None:
        """Wait until every call from before `since` has ended; return the seconds, or None if it took too long."""
        sql = (
            "SELECT count(*) FROM llm_call"
            " WHERE state IN ('queued', 'running', 'waiting') AND created_at <= :since"
            " AND org_id <> :hostile"
        )
        rows = self.deployment.rows
        has_ended = holds_within(
            give_up_after_s,
            lambda: not rows(sql, since=since, hostile=self.hostile)[0][0],
            poll_s=0.1,
        )
        return (self.now() - since).total_seconds() if has_ended else None

    # Observations.

    def unknown_since_s(self) -> dict[str, float]:
        """Return when each attempt became UNKNOWN, in seconds since 1970; also if it no longer is."""
        sql = (
            "SELECT attempt_id::text, extract(epoch FROM min(at))::float8"
            " FROM chaos.observation WHERE what = 'unknown' GROUP BY attempt_id"
        )
        return dict(map(tuple, self.deployment.rows(sql)))

    def pids_of_lost_attempts(self) -> set[int]:
        """Return the ids of the processes whose attempts became lost."""
        sql = (
            "SELECT DISTINCT split_part(worker_id, ':', 2)::int"
            " FROM chaos.observation JOIN ai_call_log USING (attempt_id) WHERE what = 'lost'"
        )
        return {row[0] for row in self.deployment.rows(sql)}

    def count(self, rows: str) -> int:
        """Count rows, without those of the hostile organisation."""
        sql = f"SELECT count(*) FROM {rows} AND org_id <> :hostile"  # noqa: S608
        return int(self.deployment.rows(sql, hostile=self.hostile)[0][0])

    def unexpected_ends(self, rich: str) -> list[str]:
        """Return a violation for calls that died or were rejected without a reason, and for workers that failed."""
        sql = (
            "SELECT state, count(*) FROM llm_call WHERE org_id <> :hostile AND (state = 'dead'"
            " OR org_id = :rich AND state = 'rejected') GROUP BY state ORDER BY state"
        )
        rows = self.deployment.rows(sql, rich=rich, hostile=self.hostile)
        ended = [f"{count} calls are {state}" for state, count in rows]
        codes = {child.code for child in self.workers} - {None, 0, -signal.SIGKILL}
        return ended + [
            f"a worker ended with {code}"
            for code in sorted(code for code in codes if code is not None)
        ]

    def overrun_nano_usd(self) -> int:
        """Return the largest spent + held - limit: recorded by the trigger, sampled, or of now."""
        recorded = "SELECT coalesce(max(nano_usd), 0) FROM chaos.observation WHERE what = 'overrun'"
        now = "SELECT max(spent_nano_usd + reserved_nano_usd - limit_nano_usd) FROM budget"
        overrun = int(self.deployment.rows(recorded)[0][0])
        return overrun or max(self.budgets.overrun_nano_usd, self.deployment.rows(now)[0][0])

    def observe(self, recover_s: float | None) -> Observations:
        """Wait for the clients and for open calls; return all observations."""
        batches = self.batches()
        self._wait_for_ends(batches)
        requests = self.records.requests()
        calls = self.records.calls(self.hostile)
        # A new client: the pooled connections of the other one may be older than the server.
        with self.deployment.open_client() as client:
            report = audit(client.operations)
        return Observations(
            batches=batches,
            requests=requests,
            limits=self.records.limits_seen(self.flow, requests),
            attempts=self.records.attempts(self.unknown_since_s()),
            calls={task: state for task, _, state in calls},
            calls_of={name: sum(n == name for _, n, _ in calls) for name in sorted(self.targets)},
            misposted=self.records.misposted(self.posted_nano_usd, self.hostile),
            overrun_nano_usd=self.overrun_nano_usd(),
            drift_nano_usd=report.drift_nano_usd,
            is_clean=report.is_clean,
            unknown_below_hold=self.count(UNKNOWN_BELOW_HOLD),
            posted_again=self.count(POSTED_AGAIN),
            unused_replies=self.count(UNUSED_REPLIES),
            delivered=self.links.delivered(),
            deliveries_max=self.links.deliveries_max(),
            unmarked_links=self.count(UNMARKED_LINKS),
            recover_s=recover_s,
        )

    def _wait_for_ends(self, batches: Sequence[Batch]) -> None:
        """Wait until all calls are settled and all links are delivered and marked, for at most `END_MAX_S`."""
        owed = links_owed(batches)

        def have_ended() -> bool:
            delivered = self.links.delivered()
            is_delivered = all(delivered.get(key, 0) >= n for key, n in owed.items())
            left = self.count(OPEN) or self.count(UNMARKED_LINKS) or self.count(UNUSED_REPLIES)
            return is_delivered and not left

        holds_within(END_MAX_S, have_ended)


@contextmanager
def open_environment(
    dev_servers: DevServers, fork_server: ForkServer, folder: Path, seed: int = 0
) -> Iterator[Environment]:
    """Empty the ledger and the broker of the servers, and yield an environment. Its processes end with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Simulator() as provider,
        Deployment(
            dev_servers, provider, folder, catalogue=CATALOGUE + NO_LIMITS.catalogue
        ) as deployment,
        BudgetObserver(dev_servers.database_url) as budgets,
        LinkCollector(dev_servers.broker_url) as links,
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
