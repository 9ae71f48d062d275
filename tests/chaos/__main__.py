"""
Inject faults into real servers and real processes under load, and print the results.

    make chaos                                            all trials, up to twenty minutes
    make chaos ARGS="--faults postgres_frozen,collapse"   only these
    make chaos ARGS="--list"                              the names of the trials
    make chaos ARGS="--seconds 30 --seed 7 --json"        longer load, another seed, and one JSON object on stdout

The exit code is 1 if anything was lost, overspent, unrecorded, or paid twice without an UNKNOWN outcome, or if a limit
of the provider was not kept. Each trial has its own servers: Postgres with fsync, and Valkey with its data on disk
unless the trial needs it in memory. The provider has tight limits, but for the trials of overspend and of the hostile
tenant, which measure something else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from devkit.servers.embedded import DevServers
from tests.chaos.budget_stress import Stress, stress_ledger, stress_workers
from tests.chaos.disk import small_disk
from tests.chaos.duplicate_stress import stress_duplicates
from tests.chaos.environment import Environment, open_environment
from tests.chaos.evaluation import Evaluation
from tests.chaos.faults import FAULTS
from tests.chaos.hostile import run_hostile
from tests.chaos.trial import run_trial
from tests.support.forked_workers import ForkServer
from worker.migrate import migrate

SECONDS = 10.0
LEDGER_ROUNDS, WORKER_ROUNDS = 40, 4


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial, with its name on the command line."""

    name: str
    run: Callable[[Environment], Evaluation | Stress]
    has_persistence: bool = True
    has_small_disk: bool = False


def trials(seconds: float) -> dict[str, Trial]:
    """Return every trial, in the order in which they run."""
    faults = [
        Trial(
            f.name,
            partial(run_trial, fault=f, seconds=seconds),
            f.has_persistence,
            f.has_small_disk,
        )
        for f in FAULTS.values()
    ]
    stresses = [
        Trial("overspend_ledger", partial(stress_ledger, rounds=LEDGER_ROUNDS)),
        Trial("overspend_workers", partial(stress_workers, rounds=WORKER_ROUNDS)),
        Trial("collapse", partial(stress_duplicates, submissions=10_000, requests=100, kills=8)),
        Trial("hostile_tenant", run_hostile),
    ]
    return {trial.name: trial for trial in [*faults, *stresses]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen trials; return 1 if any has a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--faults", help="names, separated by commas; by default all")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="the minimum seconds of load for each fault"
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed for moments and victims")
    parser.add_argument("--json", action="store_true", help="print one JSON object to stdout")
    parser.add_argument("--list", action="store_true", help="print the names of the trials")
    options = parser.parse_args(arguments)
    known = trials(options.seconds)
    names = options.faults.split(",") if options.faults else list(known)
    if unknown := set(names) - known.keys():
        parser.error(f"no such trial: {', '.join(sorted(unknown))}; see --list")
    if options.list:
        sys.stdout.write("".join(f"{name}\n" for name in known))
        return 0
    results = list(_run([known[name] for name in names], options.seed))
    _show(results)
    violations = sum(len(result["violations"]) for result in results)
    if options.json:
        where = {"machine": f"{platform.platform()}, {os.cpu_count()} cores", "seed": options.seed}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        sys.stdout.write(json.dumps({"at": at, **where, "trials": results}) + "\n")
    return 1 if violations else 0


def _run(chosen: Sequence[Trial], seed: int) -> Iterator[dict[str, Any]]:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="callgate-chaos-") as name:
        folder = Path(name)
        # The servers may run under another account.
        folder.chmod(0o755)
        with ForkServer(folder) as fork_server:
            for number, trial in enumerate(chosen, 1):
                console.print(f"[{number}/{len(chosen)}] {trial.name} ...", end=" ", markup=False)
                result = _result(trial, fork_server, folder / trial.name, seed)
                console.print(
                    "FAILED" if result["violations"] else "ok", f"{result['seconds']:.0f} s"
                )
                for violation in result["violations"]:
                    console.print(f"    {violation}", markup=False)
                yield result


def _result(trial: Trial, fork_server: ForkServer, folder: Path, seed: int) -> dict[str, Any]:
    began = time.monotonic()
    with _environment(trial, fork_server, folder, seed) as environment:
        try:
            outcome = asdict(trial.run(environment))
        except Exception as exc:
            # A timeout or an unexpected error; the other trials still run.
            outcome = {"violations": (f"{type(exc).__name__}: {exc}",)}
    outcome |= outcome.pop("limits", {})
    seconds = round(time.monotonic() - began, 1)
    return {"fault": trial.name, **outcome, "notes": environment.notes, "seconds": seconds}


@contextmanager
def _environment(
    trial: Trial, fork_server: ForkServer, folder: Path, seed: int
) -> Iterator[Environment]:
    with ExitStack() as stack:
        servers = folder / "servers"
        if trial.has_small_disk:
            stack.enter_context(small_disk(servers))
        dev_servers = DevServers(servers, fsync=True, valkey_persistence=trial.has_persistence)
        stack.enter_context(dev_servers)
        migrate(dev_servers.database_url)
        yield stack.enter_context(
            open_environment(dev_servers, fork_server, folder / "environment", seed)
        )


def _show(results: Sequence[dict[str, Any]]) -> None:
    """Print a table of the faults, one of their protocols, and one of the overspend stress."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 240)
    stresses = [r for r in results if "rounds" in r]
    for some in ([r for r in results if r not in stresses], list(_protocols(results)), stresses):
        if some:
            console.print(_table(some))
    for result in results:
        for note in result["notes"]:
            console.print(f"{result['fault']}: {note}", markup=False)


def _protocols(results: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for result in results:
        for name, use in result.get("protocols", {}).items():
            counts = {key: count for key, count in use.items() if key != "limits"}
            yield {"fault": result["fault"], "protocol": name, **counts, **use["limits"]}


def _table(results: Sequence[dict[str, Any]]) -> Table:
    hidden = {"notes", "protocols", "violations"}
    columns = [name for name in max(results, key=len) if name not in hidden]
    headings = [name.replace("_", " ") for name in columns]
    have_violations = any("violations" in result for result in results)
    table = Table(*headings, *["violations"] * have_violations)
    for result in results:
        cells = [_text(result.get(name)) for name in columns]
        table.add_row(*cells, *["; ".join(result.get("violations", ())) or "-"] * have_violations)
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
