"""
Compare callgate with a bare Celery task and a chain of three tasks, on the same simulator and machine, in one run.

    make bench                       prints a table to stderr and one JSON object to stdout
    make bench ARGS="--calls 300"    a shorter run

The subjects run in turn for several rounds, and their medians are compared, because the speed of a machine varies. The
time is from the first publish until the client has the last result. Everything of callgate is on: deduplication, holds,
the ledger with fsync, log tasks, results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
from celery import chain

from callgate import Client, LLMRequest, Message
from callgate.domain.budgets import Window
from callgate.domain.calls import CallKey
from callgate.domain.ledger import Reserve, Reserved
from callgate.domain.reports import By
from callgate.services.audit import audit
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Rule, Simulator, Step
from tests.benchmarks.limits import CALLS as LIMITED_CALLS
from tests.benchmarks.limits import limited_provider
from tests.benchmarks.subjects import subject
from worker.migrate import migrate

ORG = "bench"
TEXT = "Extract supplier and total from this invoice. " * 8
RESULTS_TIMEOUT_S = 300.0
CATALOGUE = """
[providers.sim]
unlimited = true
base_url = "{base_url}"
needs_key = false

[default]
max_output_tokens_default = 100

[[prices]]
provider = "sim"
model = "sim-1"
input_usd_per_million = 0.15
output_usd_per_million = 0.60
source = "the benchmark's own"
as_of = 2026-11-01
"""


@dataclass
class Bench:
    """The servers and the client of one run."""

    dev_servers: DevServers
    simulator: Simulator
    client: Client
    folder: Path

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker process."""
        with (self.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", *arguments], stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(120)

    def script(self, latency_s: float) -> None:
        """Set the latency of the provider."""
        self.simulator.reset()
        self.simulator.script([Rule(reply=(Step(latency_s=latency_s),))])


def requests(count: int) -> list[LLMRequest]:
    """Return new requests."""
    run = uuid4().hex
    return [
        LLMRequest(
            org_id=ORG,
            call_type="bench",
            provider="sim",
            model="sim-1",
            messages=(Message(role="user", content=f"{TEXT}{run} {n}"),),
        )
        for n in range(count)
    ]


def callgate_round(bench: Bench, count: int) -> float:
    """Return the calls per second of callgate."""
    batch = requests(count)
    started = time.perf_counter()
    handles = bench.client.submit_many(batch)
    done = sum(1 for _ in bench.client.as_completed(handles, timeout=RESULTS_TIMEOUT_S))
    assert done == count
    return count / (time.perf_counter() - started)


def celery_round(kind: str, count: int) -> float:
    """Return the calls per second of a subject."""
    app = subject(kind)
    texts = [f"{TEXT}{uuid4().hex}" for _ in range(count)]
    started = time.perf_counter()
    if kind == "bare":
        results = [app.tasks["bench.call"].apply_async((text,)) for text in texts]
    else:
        tasks = app.tasks
        results = [
            chain(
                tasks["bench.reserve"].s(text), tasks["bench.provider"].s(), tasks["bench.log"].s()
            ).apply_async()
            for text in texts
        ]
    for result in results:
        result.get(timeout=RESULTS_TIMEOUT_S)
    return count / (time.perf_counter() - started)


def throughput(bench: Bench, count: int, rounds: int) -> dict[str, Any]:
    """Return the medians of all three, and the ratios of callgate. Each has one worker, idle while others run."""
    bench.script(latency_s=0.05)
    subjects: dict[str, Callable[[], float]] = {
        "bare": lambda: celery_round("bare", count),
        "chain": lambda: celery_round("chain", count),
        "callgate": lambda: callgate_round(bench, count),
    }
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    with ExitStack() as workers:
        for kind in ("bare", "chain"):
            workers.enter_context(bench.worker("tests.benchmarks.subjects", kind))
        workers.enter_context(bench.worker("callgate", "worker"))
        for run in subjects.values():
            run()
        for number in range(rounds):
            for name, run in subjects.items():
                rates[name].append(run())
                print_progress(f"round {number + 1}: {name:9s} {rates[name][-1]:7.0f} calls/s")
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    return {
        "calls_per_s": medians,
        "ratio_to_bare": round(medians["callgate"] / medians["bare"], 3),
        "ratio_to_chain": round(medians["callgate"] / medians["chain"], 3),
    }


def thousand_in_flight(bench: Bench, count: int) -> dict[str, Any]:
    """Return the figures of one worker process with 1,000 calls in flight, of one second each."""
    bench.script(latency_s=1.0)
    with bench.worker("callgate", "worker") as process:
        callgate_round(bench, 20)
        rate = callgate_round(bench, count)
        status = Path(f"/proc/{process.pid}/status").read_text()
    (peak_kib,) = (int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    return {
        "calls_per_s": round(rate, 1),
        "in_flight_max": bench.simulator.counts().in_flight_max,
        "peak_mb": round(peak_kib / 1024),
    }


def ledger(bench: Bench, count: int = 300) -> dict[str, Any]:
    """Return the latency of single reserves, and the rows per second of `submit_many`."""
    prepared = [bench.client._submit.prepare(request) for request in requests(5_000)]
    started = time.perf_counter()
    stored = bench.client.ledger.submit(prepared)
    rows_per_s = len(stored) / (time.perf_counter() - started)
    times_ms = []
    for answer in stored[:count]:
        begun = time.perf_counter()
        (outcome,) = bench.client.ledger.reserve([a_reserve(answer.key)])
        times_ms.append((time.perf_counter() - begun) * 1000)
        assert isinstance(outcome, Reserved)
    times_ms.sort()
    return {
        "submit_rows_per_s": round(rows_per_s),
        "reserve_p50_ms": round(times_ms[count // 2], 2),
        "reserve_p99_ms": round(times_ms[int(count * 0.99)], 2),
    }


def cached_budgets(bench: Bench, count: int = 500) -> dict[str, Any]:
    """Return the latency of budget figures from the cache."""
    times_ms = []
    for _ in range(count):
        begun = time.perf_counter()
        bench.client.budgets(ORG)
        times_ms.append((time.perf_counter() - begun) * 1000)
    return {"p50_ms": round(statistics.median(times_ms), 3)}


def a_reserve(key: CallKey) -> Reserve:
    """Return the reserve of a call, like that of a worker."""
    return Reserve(key, 60_000, 3_600, f"bench/{uuid4().hex}", "bench")


@contextmanager
def running() -> Iterator[Bench]:
    """Start everything that a run needs, with fsync, as in production."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callgate-bench-")))
        dev_servers = stack.enter_context(DevServers(folder / "dev_servers"))
        simulator = stack.enter_context(Simulator())
        migrate(dev_servers.database_url)
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(CATALOGUE.format(base_url=simulator.base_url))
        os.environ.update(
            CALLGATE_DATABASE_URL=dev_servers.database_url,
            CALLGATE_BROKER_URL=dev_servers.broker_url,
            CALLGATE_CATALOGUE=str(catalogue),
            BENCH_BROKER=dev_servers.broker_url.replace("/0", "/1"),
            BENCH_DATABASE=dev_servers.database_url.replace("+psycopg2", ""),
            BENCH_PROVIDER=simulator.base_url,
        )
        with psycopg2.connect(os.environ["BENCH_DATABASE"]) as connection:
            cursor = connection.cursor()
            cursor.execute(
                "CREATE TABLE bench_budget (max bigint, reserved bigint, spent bigint);"
                "INSERT INTO bench_budget VALUES (1000000000000, 0, 0);"
                "CREATE TABLE bench_log (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(),"
                " input_tokens int, output_tokens int, cost bigint)"
            )
        client = stack.enter_context(Client.from_env())
        client.operations.set_budget(ORG, "org", Window.DAY, 10**15)
        # Otherwise the breaker admits three attempts until the first has succeeded.
        by = By("bench", "it answers")
        client.operations.set_breaker("sim", "sim-1", "", is_open=False, by=by)
        yield Bench(dev_servers, simulator, client, folder)


def print_progress(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Run everything once, and print the figures."""
    parser = argparse.ArgumentParser(
        description="Measure callgate beside the bare task and a chain."
    )
    parser.add_argument("--calls", type=int, default=600, help="calls per round and subject")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight-calls", type=int, default=4_000)
    parser.add_argument(
        "--limited-calls", type=int, default=LIMITED_CALLS, help="with a provider limit; 0 for none"
    )
    options = parser.parse_args()
    with running() as bench:
        figures = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "load_before": round(os.getloadavg()[0], 2),
            "ledger": ledger(bench),
            "cached_budgets": cached_budgets(bench),
            "throughput": throughput(bench, options.calls, options.rounds),
            "thousand_in_flight": thousand_in_flight(bench, options.in_flight_calls),
            "load_after": round(os.getloadavg()[0], 2),
            "audit_is_clean": audit(bench.client.operations).is_clean,
        }
    if options.limited_calls:
        figures["limited_provider"] = limited_provider(options.limited_calls)
    for name, value in figures.items():
        print_progress(f"{name:20s} {value}")
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
