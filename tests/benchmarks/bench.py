"""
Measure callgate beside the bare Celery task and the naive three-task chain: same simulator, same machine, one run.

    make bench                       prints a table to stderr and one JSON object to stdout
    make bench ARGS="--calls 300"    a shorter run

The subjects take turns for several rounds, and medians are compared, because machines drift. What is timed is from the
first publish until the last result is visible to its submitter, everything of callgate on: dedup, hold, ledger with
fsync, log task, result.
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
from tests.benchmarks.subjects import subject
from worker.migrate import migrate

ORG = "bench"
TEXT = "Extract supplier and total from this invoice. " * 8
PATIENCE_S = 300.0
CATALOGUE = """
[providers.sim]
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
    """The services of one run."""

    services: DevServers
    simulator: Simulator
    client: Client
    folder: Path

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process, stopped at the end."""
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
        """Have the provider answer after a fixed time."""
        self.simulator.reset()
        self.simulator.script([Rule(reply=(Step(latency_s=latency_s),))])


def requests(count: int) -> list[LLMRequest]:
    """Requests nobody has made before."""
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
    """Calls per second through callgate."""
    wanted = requests(count)
    started = time.perf_counter()
    handles = bench.client.submit_many(wanted)
    done = sum(1 for _ in bench.client.as_completed(handles, timeout=PATIENCE_S))
    assert done == count
    return count / (time.perf_counter() - started)


def celery_round(kind: str, count: int) -> float:
    """Calls per second through a subject."""
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
        result.get(timeout=PATIENCE_S)
    return count / (time.perf_counter() - started)


def throughput(bench: Bench, count: int, rounds: int) -> dict[str, Any]:
    """Medians of all three, and callgate's ratios to the others; one worker process each, idle while others run."""
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
                say(f"round {number + 1}: {name:9s} {rates[name][-1]:7.0f} calls/s")
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    return {
        "calls_per_s": medians,
        "ratio_to_bare": round(medians["callgate"] / medians["bare"], 3),
        "ratio_to_chain": round(medians["callgate"] / medians["chain"], 3),
    }


def thousand_in_flight(bench: Bench, count: int) -> dict[str, Any]:
    """One worker process with 1,000 calls in flight of one second each."""
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
    """A lone caller's reserve, and rows per second of submit_many."""
    wanted = requests(5_000)
    prepared = [bench.client._submit.prepare(request) for request in wanted]
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
    """Reading budget figures from the cache."""
    times_ms = []
    for _ in range(count):
        begun = time.perf_counter()
        bench.client.budgets(ORG)
        times_ms.append((time.perf_counter() - begun) * 1000)
    return {"p50_ms": round(statistics.median(times_ms), 3)}


def a_reserve(key: CallKey) -> Reserve:
    """A hold as a worker makes it."""
    return Reserve(key, 60_000, 3_600, f"bench/{uuid4().hex}", "bench")


@contextmanager
def running() -> Iterator[Bench]:
    """Everything a run needs, with fsync on, as in production."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callgate-bench-")))
        services = stack.enter_context(DevServers(folder / "services"))
        simulator = stack.enter_context(Simulator())
        migrate(services.database_url)
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(CATALOGUE.format(base_url=simulator.base_url))
        os.environ.update(
            CALLGATE_DATABASE_URL=services.database_url,
            CALLGATE_BROKER_URL=services.broker_url,
            CALLGATE_CATALOGUE=str(catalogue),
            BENCH_BROKER=services.broker_url.replace("/0", "/1"),
            BENCH_DATABASE=services.database_url.replace("+psycopg2", ""),
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
        # Else three attempts at a time are let through until the first of them has succeeded.
        by = By("bench", "it answers")
        client.operations.set_breaker("sim", "sim-1", "", is_open=False, by=by)
        yield Bench(services, simulator, client, folder)


def say(line: str) -> None:
    """Tell whoever watches."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Run everything once and print what it said."""
    parser = argparse.ArgumentParser(
        description="Measure callgate beside the bare task and a chain."
    )
    parser.add_argument("--calls", type=int, default=600, help="calls per round and subject")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight-calls", type=int, default=4_000)
    options = parser.parse_args()
    with running() as bench:
        said = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "load_before": round(os.getloadavg()[0], 2),
            "ledger": ledger(bench),
            "cached_budgets": cached_budgets(bench),
            "throughput": throughput(bench, options.calls, options.rounds),
            "thousand_in_flight": thousand_in_flight(bench, options.in_flight_calls),
            "load_after": round(os.getloadavg()[0], 2),
            "audit_is_clean": audit(bench.client.operations.snapshot()).is_clean,
        }
    for name, value in said.items():
        say(f"{name:20s} {value}")
    print(json.dumps(said))  # noqa: T201


if __name__ == "__main__":
    main()
