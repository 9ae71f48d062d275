"""
A whole deployment on this machine: Postgres, Valkey, a simulated provider, worker processes and a client.

Real processes and real servers; only the provider is simulated. Deadlines are short, so that what falls due does so
while a test looks on.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tests.support.tables import EMPTY

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0
RICH_NANO_USD = 1_000 * NANO_PER_USD

CATALOGUE = """
[providers.sim]
base_url = "{base_url}"
needs_key = false

[default]
max_output_tokens_default = 50
deadline_s = 15
retry_wait_s = 0.1
retry_wait_max_s = 0.2
unknown_wait_s = 0.1

# Its attempts are over, or lost, within seconds.
[call_types.brief]
max_output_tokens_default = 50
deadline_s = 2
attempts_max = 2
retry_wait_s = 0.1
retry_wait_max_s = 0.2
unknown_wait_s = 0.1

# Nothing of it expires while a test looks on: only a lost lease moves it on.
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


class Process:
    """A child process with its output in a file."""

    def __init__(
        self, name: str, argv: Sequence[str], environ: Mapping[str, str], folder: Path
    ) -> None:
        self.log = folder / f"{name}-{uuid4().hex[:8]}.log"
        with self.log.open("wb") as output:
            self._child = subprocess.Popen(  # noqa: S603 - the argument list is ours
                argv,
                cwd=CHECKOUT,
                env=clean_environ(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def is_alive(self) -> bool:
        """True until it has ended."""
        return self._child.poll() is None

    def until_it_says(self, words: str, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Wait until its output has these words."""
        until(
            lambda: words in self.output() or not self.is_alive(),
            timeout_s,
            lambda: f"no {words!r} in:\n{self.output()}",
        )
        assert words in self.output(), f"ended with {self._child.returncode}:\n{self.output()}"
        return self

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def freeze(self) -> None:
        """Stop it with SIGSTOP; return when its last thread stands still, which a busy machine may delay."""
        self.send(signal.SIGSTOP)
        threads = Path(f"/proc/{self._child.pid}/task")
        until(lambda: all(_state(thread / "stat") in "Tt" for thread in threads.iterdir()))

    def kill(self) -> None:
        """Kill it with SIGKILL; return when it is gone."""
        self._child.kill()
        self._child.wait(STOP_TIMEOUT_S)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait until it has ended; return its exit code."""
        return self._child.wait(timeout_s)

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()


def _state(stat: Path) -> str:
    return stat.read_text().rpartition(")")[2].split()[0]


class Deployment:
    """
    callgate as one team would run it, for the length of a `with` block. No worker runs until one is started.

    Every test takes an organisation of its own (`org`), so that money and calls of tests never meet.
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
        file.write_text(catalogue.format(base_url=provider.base_url))
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
        }
        self.client = self.open_client()
        self._engine = create_engine(services.database_url, poolclass=NullPool)
        self._processes: list[Process] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        with self._engine.begin() as connection:
            connection.execute(text(EMPTY))
        self.wipe_broker()
        self.vouch_for_the_provider()
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

    def vouch_for_the_provider(self) -> None:
        """Have its breaker closed and proven: for a minute any number of calls goes to it, before one succeeds."""
        by = By("tests", "it answers")
        self.client.operations.set_breaker("sim", "sim-1", "", is_open=False, by=by)

    def worker(self, **changes: str) -> Process:
        """Start a worker for both queues, some of its environment changed; return when it takes calls."""
        process = self.start("worker", worker_argv(), **changes)
        return process.until_it_says("ready.")

    def have_workers(self, count: int, **changes: str) -> list[Process]:
        """Have so many workers that were started so: those that run, and new ones; return when all take calls."""
        workers = self._workers()
        for worker in workers[count:]:
            worker.kill()
        missing = range(count - len(workers))
        workers += [self.start("worker", worker_argv(), **changes) for _ in missing]
        return [worker.until_it_says("ready.") for worker in workers[:count]]

    def start(self, name: str, argv: Sequence[str], **changes: str) -> Process:
        """Start a process in this deployment's environment; it ends with the deployment at the latest."""
        process = Process(name, argv, {**self.environ, **changes}, self.folder)
        self.adopt(process)
        return process

    def python(self, name: str, arguments: Sequence[str], **changes: str) -> Process:
        """Start a Python process in this deployment's environment."""
        return self.start(name, [sys.executable, *arguments], **changes)

    def adopt(self, process: Process) -> None:
        """Kill a process at the end, if it still runs."""
        self._processes.append(process)

    def ensure_worker(self) -> Process:
        """Have exactly one worker: the one that runs, or a new one."""
        workers = self._workers()
        return workers[0] if workers else self.worker()

    def is_idle(self) -> bool:
        """Ask whether every message has been taken, and the one worker has ended what it took."""
        with Redis.from_url(self.services.broker_url) as broker:
            if broker.llen(CALL_QUEUE) + broker.llen(LOG_QUEUE):
                return False
        asked = self.client.celery_app.control.inspect(limit=1, timeout=5)
        answers = (asked.reserved(), asked.active())
        return all(answer is not None and not any(answer.values()) for answer in answers)

    def stop_workers(self) -> None:
        """Have no worker."""
        for process in self._workers():
            process.kill()

    def _workers(self) -> list[Process]:
        return [p for p in self._processes if p.log.name.startswith("worker-") and p.is_alive()]

    def org(self, limit_nano_usd: int | None = RICH_NANO_USD) -> str:
        """Make a new organisation with a daily limit, or with none at all."""
        name = f"org-{uuid4().hex[:12]}"
        if limit_nano_usd is not None:
            self.limit(name, limit_nano_usd)
        return name

    def limit(self, org: str, limit_nano_usd: int) -> None:
        """Set the daily limit of an organisation."""
        self.client.operations.set_budget(org, "org", Window.DAY, limit_nano_usd)

    def request(self, org: str, content: str = "", **fields: Any) -> LLMRequest:
        """Make a request that nobody made before, or the one with this content."""
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
        """What a worker will hold for a request, in nano-USD."""
        tokens = TokenEstimator(self.client.catalogue).input_bound(request).tokens
        costs = CostCalculator(self.client.catalogue)
        return costs.worst_case(request, tokens, datetime.now(UTC)).nano_usd

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """Run one statement on the ledger, past everything of callgate's."""
        with self._engine.begin() as connection:
            result = connection.execute(text(sql), parameters)
            return list(result) if result.returns_rows else []

    @contextmanager
    def locked(self, sql: str, **parameters: Any) -> Iterator[None]:
        """Hold the rows that one statement locks."""
        with self._engine.begin() as connection:
            connection.execute(text(sql), parameters)
            yield

    def attempts(self, org: str) -> list[Any]:
        """Rows of `ai_call_log` of an organisation, oldest first."""
        return self.rows(
            "SELECT * FROM ai_call_log WHERE org_id = :org ORDER BY attempt_id", org=org
        )

    def wipe_broker(self) -> None:
        """Make the broker forget everything."""
        with Redis.from_url(self.services.broker_url) as valkey:
            valkey.flushall()

    def open_calls(self) -> int:
        """How many calls have not ended."""
        sql = "SELECT count(*) FROM llm_call WHERE state IN ('queued', 'running', 'waiting')"
        return int(self.rows(sql)[0][0])

    def end_open_calls(self) -> None:
        """Kill the workers of calls that have not ended, and forget those calls."""
        if self.open_calls():
            self.stop_workers()
            self.rows("TRUNCATE llm_call, submission, ai_call_log, budget")
            self.wipe_broker()

    def assert_books_are_right(self) -> None:
        """Audit: no drift, no attempt without its row."""
        report = audit(self.client.operations.snapshot())
        assert report.is_clean, report


def worker_argv(role: str = "all") -> list[str]:
    """The command line of a worker process."""
    return [sys.executable, "-m", "callgate", "worker", "--queues", role]


def clean_environ(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without callgate's variables, but with `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CALLGATE_", "OPENAI_"))}
    return {**kept, **changes}


def until(
    is_so: Callable[[], object],
    timeout_s: float = 20.0,
    complaint: Callable[[], str] = lambda: "it did not become so",
) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.02)


def until_equal(expected: object, look: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait until a look brings the expected value."""
    until(lambda: look() == expected, timeout_s, lambda: f"expected {expected!r}, saw {look()!r}")


def lines_of(file: Path) -> list[str]:
    """The lines of a file; none if there is no file yet."""
    with suppress(FileNotFoundError):
        return file.read_text().splitlines()
    return []
