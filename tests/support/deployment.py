"""
A whole deployment on this machine: Postgres, Valkey, a simulated provider, worker processes and a client.

Real processes and real servers; only the provider is simulated. Deadlines and intervals are short, so that calls become
due during a test.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from redis import Redis
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from callgate import Client, LLMRequest, Message
from callgate.adapters.broker.app import CALL_QUEUE, LOG_QUEUE
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.budgets import NANO_PER_USD, Window
from callgate.domain.reports import By
from callgate.services.audit import audit
from callgate.settings import ClientSettings
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator
from tests.support.processes import (
    CHECKOUT,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Process,
    clean_environ,
    worker_argv,
)
from tests.support.tables import EMPTY
from tests.support.waiting import until, until_equal

# Tests import these together with `Deployment`.
__all__ = [
    "CATALOGUE",
    "CHECKOUT",
    "RICH_NANO_USD",
    "START_TIMEOUT_S",
    "STOP_TIMEOUT_S",
    "Deployment",
    "Process",
    "clean_environ",
    "lines_of",
    "until",
    "until_equal",
    "with_addresses",
    "worker_argv",
]

RICH_NANO_USD = 1_000 * NANO_PER_USD

CATALOGUE = """
[providers.sim]
unlimited = true
base_url = "{base_url}"
needs_key = false

[default]
max_output_tokens_default = 50
deadline_s = 15
retry_wait_s = 0.1
retry_wait_max_s = 0.2
unknown_wait_s = 0.1

# Attempts end or become lost within seconds.
[call_types.brief]
max_output_tokens_default = 50
deadline_s = 2
attempts_max = 2
retry_wait_s = 0.1
retry_wait_max_s = 0.2
unknown_wait_s = 0.1

# Attempts do not expire during a test: they become lost only with the lease of their worker.
[call_types.patient]
deadline_s = 60
retry_wait_s = 0.1
retry_wait_max_s = 0.2
unknown_wait_s = 0.1

[call_types.bounded]
deadline_s = 15
input_tokens_max = 20
pages_max = 3
models = ["sim/sim-1"]

[[prices]]
provider = "sim"
model = "sim-1"
input_usd_per_million = 1
output_usd_per_million = 2
source = "acceptance tests"
as_of = 2026-11-01
"""


class Deployment:
    """
    callgate as a team would run it, inside a `with`. No worker runs until a test starts one.

    Every test uses an organisation of its own (`org`), so that budgets and calls of tests are separate.
    """

    def __init__(
        self,
        services: DevServers,
        provider: Simulator,
        folder: Path,
        *,
        catalogue: str = CATALOGUE,
    ) -> None:
        self.services = services
        self.provider = provider
        self.folder = folder
        file = folder / "catalogue.toml"
        file.write_text(with_addresses(catalogue, provider.base_url))
        self.environ = {
            "CALLGATE_DATABASE_URL": services.database_url,
            "CALLGATE_BROKER_URL": services.broker_url,
            "CALLGATE_CATALOGUE": str(file),
            "CALLGATE_LEDGER_TIMEOUT_S": "1.9",
            "CALLGATE_WORKER__ATTEMPT_GRACE_S": "7",
            "CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S": "70",
            "CALLGATE_WORKER__DUE_INTERVAL_S": "0.1",
            "CALLGATE_WORKER__SWEEP_INTERVAL_S": "0.3",
            "CALLGATE_WORKER__SWEEP_MIN_AGE_S": "0.3",
            # Many workers run on one machine. Those that are asked for their health get a port of their own.
            "CALLGATE_WORKER__STATUS_PORT": "0",
            "CALLGATE_WORKER__FLOWER_STATUS_PORT": "0",
        }
        self.client = self.open_client()
        self._engine = create_engine(services.database_url, poolclass=NullPool)
        self._processes: list[Process] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        with self._engine.begin() as connection:
            connection.execute(text(EMPTY))
        self.wipe_broker()
        self.close_breaker()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes:
            if process.is_alive():
                process.kill()
        self.client.close()
        self._engine.dispose()

    def open_client(self, **changes: Any) -> Client:
        """Open another client of this deployment, some of its settings changed."""
        settings = {
            "database_url": self.environ["CALLGATE_DATABASE_URL"],
            "broker_url": self.environ["CALLGATE_BROKER_URL"],
            "catalogue": self.environ["CALLGATE_CATALOGUE"],
        }
        return Client(ClientSettings(**{**settings, **changes}))

    def close_breaker(self, provider: str = "sim", model: str = "sim-1") -> None:
        """
        Close a breaker without a probe: for a minute it admits any number of calls, before the first succeeds.

        What was observed about its rate, in an earlier test, is forgotten.
        """
        by = By("tests", "it answers")
        self.client.operations.set_breaker(provider, model, "", is_open=False, by=by)
        with self._engine.begin() as connection:
            connection.execute(text("DELETE FROM flow_limit WHERE source = 'observed'"))

    def worker(self, **changes: str) -> Process:
        """Start a worker for both queues, with changed variables; return when it is ready."""
        process = self.start("worker", worker_argv(), **changes)
        return process.until_it_says("ready.")

    def have_workers(self, count: int, **changes: str) -> list[Process]:
        """Have `count` workers: keep those that run, start or kill others; return when all are ready."""
        workers = self._workers()
        for worker in workers[count:]:
            worker.kill()
        missing = range(count - len(workers))
        workers += [self.start("worker", worker_argv(), **changes) for _ in missing]
        return [worker.until_it_says("ready.") for worker in workers[:count]]

    def start(self, name: str, argv: Sequence[str], **changes: str) -> Process:
        """Start a process with the variables of this deployment. It is killed at the end of the deployment."""
        process = Process(name, argv, {**self.environ, **changes}, self.folder)
        self.adopt(process)
        return process

    def python(self, name: str, arguments: Sequence[str], **changes: str) -> Process:
        """Start a Python process with the variables of this deployment."""
        return self.start(name, [sys.executable, *arguments], **changes)

    def adopt(self, process: Process) -> None:
        """Kill a process at the end of the deployment, if it still runs."""
        self._processes.append(process)

    def ensure_worker(self) -> Process:
        """Return a running worker, or start one."""
        workers = self._workers()
        return workers[0] if workers else self.worker()

    def is_idle(self) -> bool:
        """Tell whether the queues are empty and the one worker has no task."""
        with Redis.from_url(self.services.broker_url) as broker:
            if broker.llen(CALL_QUEUE) + broker.llen(LOG_QUEUE):
                return False
        asked = self.client.celery_app.control.inspect(limit=1, timeout=5)
        answers = (asked.reserved(), asked.active())
        return all(answer is not None and not any(answer.values()) for answer in answers)

    def stop_workers(self) -> None:
        """Kill all workers."""
        for process in self._workers():
            process.kill()

    def _workers(self) -> list[Process]:
        return [p for p in self._processes if p.log.name.startswith("worker-") and p.is_alive()]

    def org(self, limit_nano_usd: int | None = RICH_NANO_USD) -> str:
        """Return a new organisation, with a daily limit unless that is None."""
        name = f"org-{uuid4().hex[:12]}"
        if limit_nano_usd is not None:
            self.limit(name, limit_nano_usd)
        return name

    def limit(self, org: str, limit_nano_usd: int) -> None:
        """Set the daily limit of an organisation."""
        self.client.operations.set_budget(org, "org", Window.DAY, limit_nano_usd)

    def request(self, org: str, content: str = "", **fields: Any) -> LLMRequest:
        """Return a new request, or the one with this content."""
        content = content or f"question {next(self._numbers)} {uuid4()}"
        return LLMRequest(
            **{
                "org_id": org,
                "call_type": "answer",
                "provider": "sim",
                "model": "sim-1",
                "max_output_tokens": 50,
                "messages": [Message(role="user", content=content)],
                **fields,
            }
        )

    def hold_of(self, request: LLMRequest) -> int:
        """Return what a worker holds for a request, in nano-USD."""
        tokens = TokenEstimator(self.client.catalogue).input_bound(request).tokens
        costs = CostCalculator(self.client.catalogue)
        return costs.worst_case(request, tokens, datetime.now(UTC)).nano_usd

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """Run one statement on the database of the ledger."""
        with self._engine.begin() as connection:
            result = connection.execute(text(sql), parameters)
            return list(result) if result.returns_rows else []

    @contextmanager
    def locked(self, sql: str, **parameters: Any) -> Iterator[None]:
        """Lock rows with a statement, until the block ends."""
        with self._engine.begin() as connection:
            connection.execute(text(sql), parameters)
            yield

    def attempts(self, org: str) -> list[Any]:
        """Return the rows of `ai_call_log` of an organisation, oldest first."""
        return self.rows(
            "SELECT * FROM ai_call_log WHERE org_id = :org ORDER BY attempt_id", org=org
        )

    def wipe_broker(self) -> None:
        """Delete everything from the broker."""
        with Redis.from_url(self.services.broker_url) as valkey:
            valkey.flushall()

    def open_calls(self) -> int:
        """Return how many calls have not ended."""
        sql = "SELECT count(*) FROM llm_call WHERE state IN ('queued', 'running', 'waiting')"
        return int(self.rows(sql)[0][0])

    def end_open_calls(self) -> None:
        """If calls are open, kill the workers and delete all calls."""
        if self.open_calls():
            self.stop_workers()
            sums = "attempt_delta, quarter_sum, day_sum, budget_sum"
            self.rows(f"TRUNCATE llm_call, submission, ai_call_log, budget, {sums}")
            self.wipe_broker()

    def assert_audit_is_clean(self) -> None:
        """Assert that an audit finds no drift and no missing row."""
        report = audit(self.client.operations)
        assert report.is_clean, report


def with_addresses(catalogue: str, base_url: str) -> str:
    """Return a catalogue with the provider's addresses: `{base_url}`, and `{root_url}` without its version."""
    return catalogue.format(base_url=base_url, root_url=base_url.removesuffix("/v1"))


def lines_of(file: Path) -> list[str]:
    """Return the lines of a file, or none if it does not exist."""
    with suppress(FileNotFoundError):
        return file.read_text().splitlines()
    return []
