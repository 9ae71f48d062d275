"""
Compare what a call costs in this checkout and at an earlier commit, in interleaved rounds.

    python -m tests.benchmarks.cpu 69498df              nine rounds of 400 calls; prints one JSON object
    python -m tests.benchmarks.cpu HEAD~1 --rounds 3

Each of the two has its own servers, worker and simulated provider, which stand idle while the other runs. What counts
is the CPU time of the worker and of Postgres. It varies less on a shared machine than calls per second do. WAL is what
Postgres writes, in kB per call. Calls per second include the wait for the simulated provider.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

ROUNDS, CALLS = 9, 400
CHECKOUT = Path(__file__).parents[2]
SERVE = "serve"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
TIMEOUT_S = 300.0
LASTING = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
"""A process of Postgres that does not end. Its parent is the server."""


def serve() -> None:
    """Stand ready in one checkout. For each line that is read, run that many calls, and print their CPU as JSON."""
    from devkit.servers.embedded import DevServers
    from devkit.simulator.simulator import Rule, Simulator, Step
    from tests.support.deployment import Deployment
    from worker.migrate import migrate

    with tempfile.TemporaryDirectory(prefix="callgate-cpu-") as name:
        folder = Path(name)
        # The servers may run under another account.
        folder.chmod(0o755)
        with DevServers(folder / "servers") as services, Simulator() as provider:
            migrate(services.database_url)
            with Deployment(services, provider, folder) as deployment:
                provider.script([Rule(reply=[Step(latency_s=0.05)])])
                (worker,) = deployment.have_workers(1)
                org = deployment.org()
                ((lasting,),) = deployment.rows(LASTING)
                postgres = parent_of(int(lasting))
                for line in sys.stdin:
                    figures = _round(deployment, org, int(line), worker.pid, postgres)
                    sys.stdout.write(json.dumps(figures) + "\n")
                    sys.stdout.flush()


def _round(deployment: Any, org: str, calls: int, worker: int, postgres: int) -> dict[str, float]:
    requests = [deployment.request(org) for _ in range(calls)]
    before = cpu_s(worker), cpu_s(postgres)
    wal_before, began_s = _wal_bytes(deployment), time.monotonic()
    handles = deployment.client.submit_many(requests)
    done = sum(1 for _ in deployment.client.as_completed(handles, timeout=TIMEOUT_S))
    assert done == calls
    per_s = calls / (time.monotonic() - began_s)
    time.sleep(0.5)  # What a call leaves behind, for example its delivery, belongs to it.
    after = cpu_s(worker), cpu_s(postgres)
    used = [1000 * (late - early) / calls for early, late in zip(before, after, strict=True)]
    wal_kb = (_wal_bytes(deployment) - wal_before) / 1000 / calls
    return {
        "worker_ms": used[0],
        "postgres_ms": used[1],
        "both_ms": sum(used),
        "wal_kb": wal_kb,
        "calls_per_s": per_s,
    }


def _wal_bytes(deployment: Any) -> int:
    ((written,),) = deployment.rows("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
    return int(written)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children, with those that have ended."""
    process = Path(f"/proc/{pid}")
    # The name before it may contain blanks. These four are utime, stime, cutime and cstime.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    total_s = sum(map(int, fields[11:15])) / TICKS_PER_S
    for task in (process / "task").iterdir():
        for child in (task / "children").read_text().split():
            # A child that ends now is counted by its parent.
            with suppress(FileNotFoundError):
                total_s += cpu_s(int(child))
    return total_s


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def checkout_of(ref: str) -> Iterator[Path]:
    """A second checkout of this repository at a commit, with an environment of its own."""
    with tempfile.TemporaryDirectory(prefix="callgate-before-") as name:
        tree = Path(name) / "tree"
        git = shutil.which("git") or "git"
        subprocess.run([git, "clone", "-q", str(CHECKOUT), str(tree)], check=True)  # noqa: S603
        subprocess.run([git, "-C", str(tree), "checkout", "-q", ref], check=True)  # noqa: S603
        subprocess.run(["make", "-s", "-C", str(tree), ".venv/.installed"], check=True)  # noqa: S603, S607
        shutil.copy(__file__, tree / "tests" / "benchmarks" / "cpu.py")
        yield tree


@contextmanager
def standing(tree: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that serves rounds in a checkout."""
    argv = [str(tree / ".venv/bin/python"), "-m", "tests.benchmarks.cpu", SERVE]
    process = subprocess.Popen(  # noqa: S603
        argv, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        _pipe(process.stdin).close()
        process.wait(60)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def ask(process: subprocess.Popen[str], calls: int) -> dict[str, float]:
    """Run one round of so many calls."""
    _pipe(process.stdin).write(f"{calls}\n")
    _pipe(process.stdin).flush()
    figures: dict[str, float] = json.loads(_pipe(process.stdout).readline())
    return figures


def compare(ref: str, rounds: int, calls: int) -> dict[str, Any]:
    """Return medians, spreads and the ratio of their medians, after one round of each that does not count."""
    with checkout_of(ref) as tree, standing(tree) as before, standing(CHECKOUT) as now:
        sides = {"before": before, "now": now}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(rounds + 1):
            for name, process in sides.items():
                figures = ask(process, calls)
                if number:
                    found[name].append(figures)
                    sys.stderr.write(f"round {number} {name:6s} {figures['both_ms']:.2f} ms\n")
    kinds = found["now"][0]
    medians = {
        n: {k: statistics.median(f[k] for f in of) for k in kinds} for n, of in found.items()
    }
    spreads = {
        n: {k: [round(min(f[k] for f in of), 2), round(max(f[k] for f in of), 2)] for k in kinds}
        for n, of in found.items()
    }
    return {
        "ref": ref,
        "rounds": rounds,
        "calls": calls,
        "medians": {n: {k: round(v, 2) for k, v in of.items()} for n, of in medians.items()},
        "from_to": spreads,
        "ratio": {k: round(medians["now"][k] / medians["before"][k], 3) for k in kinds},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cpu")
    parser.add_argument("ref", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS)
    options = parser.parse_args(arguments)
    if options.ref == SERVE:
        serve()
        return 0
    figures = compare(options.ref, options.rounds, options.calls)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
