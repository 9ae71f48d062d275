"""
Measure callgate's pages in Flower on a large ledger: each page, and what an open one costs workers.

    python -m tests.benchmarks.pages                       seeds ten million rows of the log first: it takes minutes
    python -m tests.benchmarks.pages --ledger URL --broker URL      on a ledger that is seeded; the broker is emptied
    python -m tests.benchmarks.pages --only /costs         only the addresses with these words, and no load

Flower is `callgate flower`, with a login. Each address is asked for as a browser does, one after the other. The median
stands beside the CPU of Flower and of the sessions that it has in Postgres, which a busy machine does not change much.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

import psutil
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from devkit.seed.history import Plan, seed
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Rule, Simulator, Step
from tests.benchmarks.cpu import LASTING, cpu_s, parent_of
from tests.benchmarks.page_addresses import addresses
from tests.support.deployment import Deployment
from tests.support.flower import AUTH, FlowerUnderTest, a_flower
from worker.flower.page import LIVE_EVERY_S
from worker.migrate import migrate

ROUNDS = 15
TARGET_MS = 300
LOAD_ROUNDS, LOAD_CALLS, LATENCY_S = 8, 3_000, 0.05
TIMEOUT_S = 300.0
DEFAULTS = ("CALLGATE_LEDGER_TIMEOUT_S", "CALLGATE_WORKER__")
"""`Deployment` shortens these for tests; this measures the defaults, but for the ports."""
Figures = dict[str, Any]


@dataclass(frozen=True)
class Servers:
    """Where they are; all that `Deployment` needs of `DevServers`."""

    database_url: str
    broker_url: str


class Standing(Deployment):
    """A deployment whose ledger is kept as it is, with the settings of production."""

    def __enter__(self) -> Self:
        """Delete messages only."""
        for name in [n for n in self.environ if n.startswith(DEFAULTS) and "PORT" not in n]:
            del self.environ[name]
        self.wipe_broker()
        self.close_breaker()
        return self


class Browser:
    """One connection to Flower that is kept, with a password and cookies, as a browser has them."""

    def __init__(self, port: int) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        word = base64.b64encode(AUTH.encode()).decode()
        self._headers = {"Authorization": f"Basic {word}"}

    def get(self, path: str) -> tuple[int, str]:
        """Ask for a page; return its status and body."""
        self._line.request("GET", path, headers=self._headers)
        answer = self._line.getresponse()
        for cookie in answer.headers.get_all("Set-Cookie") or ():
            self._headers["Cookie"] = cookie.partition(";")[0]
        return answer.status, answer.read().decode()

    def body(self, path: str) -> str:
        """Ask for a page that must exist."""
        status, body = self.get(path)
        assert status == 200, f"{path}: {status}"
        return body

    def close(self) -> None:
        """Close the connection."""
        self._line.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pages")
    parser.add_argument("--ledger", help="the URL of a seeded ledger")
    parser.add_argument("--broker", help="the URL of a broker for it, which is emptied")
    parser.add_argument("--rows", type=int, default=Plan().rows, help="to seed without --ledger")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="measure addresses with these words, no load")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if bool(options.ledger) != bool(options.broker):
        parser.error("--ledger and --broker belong together")
    with _servers(options.ledger, options.broker, options.rows) as servers:
        figures = measure(servers, options.rounds, options.only)
    print(json.dumps(figures, indent=2) if options.json else _lines(figures))  # noqa: T201
    return 0


def measure(servers: Servers, rounds: int, only: str) -> Figures:
    """Measure workers beside an open page, then each page."""
    with tempfile.TemporaryDirectory(prefix="callgate-pages-") as name, Simulator() as provider:
        # `Deployment` only reads the URLs.
        services = cast("DevServers", servers)
        with (
            Standing(services, provider, Path(name)) as deployment,
            a_flower(deployment) as flower,
        ):
            found: Figures = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": f"{platform.platform()}, {os.cpu_count()} cores",
                "load before": os.getloadavg()[0],
            }
            if not only:
                found["open overview"] = beside_an_open_page(deployment, flower)
                deployment.stop_workers()
            found["pages"] = each_page(deployment, flower, rounds, only)
            return found | {"load after": os.getloadavg()[0]}


def each_page(deployment: Deployment, flower: FlowerUnderTest, rounds: int, only: str) -> Figures:
    """Ask for each page, once before it counts."""
    with closing(Browser(flower.port)) as browser:
        found = {}
        for path in addresses(deployment.rows, browser.body):
            if only in path and path not in found:
                found[path] = _page(deployment, browser, path, rounds, flower.process.pid)
                sys.stderr.write(f"{path} {found[path]}\n")
        return found


def _page(deployment: Deployment, browser: Browser, path: str, rounds: int, flower: int) -> Figures:
    began = time.monotonic()
    status, body = browser.get(path)
    first_ms = 1000 * (time.monotonic() - began)
    before, taken = (_cpu_ms([flower]), _cpu_ms(_sessions(deployment, flower))), []
    for _ in range(rounds):
        began = time.monotonic()
        browser.get(path)
        taken.append(1000 * (time.monotonic() - began))
    after = _cpu_ms([flower]), _cpu_ms(_sessions(deployment, flower))
    # A session that has come meanwhile counts from its beginning.
    flower_ms, postgres_ms = (
        sum(late[n] - early.get(n, 0.0) for n in late) / rounds
        for early, late in zip(before, after, strict=True)
    )
    return {
        "status": status,
        "bytes": len(body),
        "first_ms": round(first_ms, 1),
        "median_ms": round(statistics.median(taken), 1),
        "max_ms": round(max(taken), 1),
        "flower_cpu_ms": round(flower_ms, 1),
        "postgres_cpu_ms": round(postgres_ms, 1),
    }


def _sessions(deployment: Deployment, client: int) -> list[int]:
    """The processes of Postgres that serve a client."""
    ports = [line.laddr.port for line in psutil.Process(client).net_connections() if line.raddr]
    found = deployment.rows(
        "SELECT pid FROM pg_stat_activity WHERE client_port = ANY(:ports)", ports=ports
    )
    return [int(pid) for (pid,) in found]


def _cpu_ms(pids: Sequence[int]) -> dict[int, float]:
    """CPU of all threads of each process, which is counted by the nanosecond; of those that have not ended."""
    found = {}
    for pid in pids:
        with suppress(FileNotFoundError):
            stats = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
            found[pid] = sum(int(stat.read_text().split()[0]) for stat in stats) / 1e6
    return found


def beside_an_open_page(deployment: Deployment, flower: FlowerUnderTest) -> Figures:
    """What calls cost while the overview is open and refreshes, and while it is not, in turns."""
    deployment.provider.script([Rule(reply=[Step(latency_s=LATENCY_S)])])
    (worker,) = deployment.have_workers(1)
    org, postgres = deployment.org(), _postgres(deployment)
    taken: dict[bool, list[Figures]] = {False: [], True: []}
    for number in range(LOAD_ROUNDS + 1):
        # Whichever is first in one turn is second in the next.
        for is_open in (False, True) if number % 2 else (True, False):
            with _open_page(flower.port) if is_open else nullcontext():
                figures = _load(deployment, org, worker.pid, postgres)
            if number:
                taken[is_open].append(figures)
                sys.stderr.write(f"{'open' if is_open else 'none':5} {figures}\n")
    medians = {
        is_open: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        for is_open, rounds in taken.items()
    }
    ratios = {key: medians[True][key] / medians[False][key] for key in medians[True]}
    named = {"without": medians[False], "with": medians[True], "ratio": ratios}
    return {name: {k: round(v, 3) for k, v in of.items()} for name, of in named.items()}


def _load(deployment: Deployment, org: str, worker: int, postgres: int) -> Figures:
    requests = [deployment.request(org) for _ in range(LOAD_CALLS)]
    before, began = (cpu_s(worker), cpu_s(postgres)), time.monotonic()
    handles = deployment.client.submit_many(requests)
    assert sum(1 for _ in deployment.client.as_completed(handles, timeout=TIMEOUT_S)) == LOAD_CALLS
    took = time.monotonic() - began
    used = (cpu_s(worker) - before[0], cpu_s(postgres) - before[1])
    worker_ms, postgres_ms = (1000 * s / LOAD_CALLS for s in used)
    return {"calls_per_s": LOAD_CALLS / took, "worker_ms": worker_ms, "postgres_ms": postgres_ms}


@contextmanager
def _open_page(port: int) -> Iterator[None]:
    """Ask for the overview, again and again, as an open page does."""
    done, failed = threading.Event(), list[str]()

    def refresh() -> None:
        with closing(Browser(port)) as browser:
            while True:
                status, _ = browser.get("/overview")
                if status != 200:
                    failed.append(f"the overview answered {status}")
                if done.wait(LIVE_EVERY_S):
                    return

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failed, failed


@contextmanager
def _servers(ledger: str | None, broker: str | None, rows: int) -> Iterator[Servers]:
    if ledger and broker:
        yield Servers(ledger, broker)
        return
    with tempfile.TemporaryDirectory(prefix="callgate-pages-") as name:
        # The servers may run under another account.
        Path(name).chmod(0o755)
        with DevServers(Path(name) / "servers") as services:
            migrate(services.database_url)
            engine = create_engine(
                services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT"
            )
            seed(engine, Plan(rows, rows // 10), progress=lambda line: print(line, file=sys.stderr))  # noqa: T201
            yield Servers(services.database_url, services.broker_url)


def _postgres(deployment: Deployment) -> int:
    """The process of the server."""
    ((lasting,),) = deployment.rows(LASTING)
    return parent_of(int(lasting))


def _lines(figures: Figures) -> str:
    pages: dict[str, Figures] = figures.pop("pages")
    head = [f"{name:16} {value}" for name, value in figures.items()]
    titles = f"{'median':>9} {'largest':>9} {'first':>9} {'Flower':>8} {'Postgres':>8}   ms; the last two of CPU"
    lines = [
        f"{f['median_ms']:9.1f} {f['max_ms']:9.1f} {f['first_ms']:9.1f} {f['flower_cpu_ms']:8.1f}"
        f" {f['postgres_cpu_ms']:8.1f}   {f['status']} {path}"
        for path, f in sorted(pages.items(), key=lambda item: -item[1]["median_ms"])
    ]
    late = sum(f["median_ms"] > TARGET_MS for f in pages.values())
    return "\n".join([*head, titles, *lines, f"{late} of {len(pages)} above {TARGET_MS} ms"])


if __name__ == "__main__":
    sys.exit(main())
