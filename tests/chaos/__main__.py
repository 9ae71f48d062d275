"""
Do every kind of harm to real servers and real processes under load, and print what came of it.

    make chaos                                            everything, about twelve minutes
    make chaos ARGS="--faults postgres_frozen,collapse"   only these
    make chaos ARGS="--list"                              their names
    make chaos ARGS="--seconds 30 --seed 7 --json"        longer load, other moments, and one JSON object on stdout

Ends with 1 if anything was lost, overspent, unrecorded or paid twice without an UNKNOWN outcome. Each trial has servers
of its own: Postgres with fsync, Valkey with its data on disk unless the trial says otherwise.
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
from tests.chaos.duplicate_stress import stress_collapse
from tests.chaos.environment import Environment, staged
from tests.chaos.evaluation import Verdict
from tests.chaos.faults import FAULTS
from tests.chaos.hostile import run_hostile
from tests.chaos.trial import run_trial
from tests.support.forked_workers import ForkServer
from worker.migrate import migrate

SECONDS = 12.0
OVERSPEND_ROUNDS_LEDGER, OVERSPEND_ROUNDS_WORKERS = 40, 4
COLLAPSE = {"submissions": 10_000, "requests": 100, "kills": 8}


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing that can be asked for by name."""

    name: str
    run: Callable[[Environment], Verdict | Stress]
    has_persistence: bool = True
    has_small_disk: bool = False


def trials(seconds: float) -> dict[str, Trial]:
    """Every trial, in the order in which they run."""
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
        Trial("overspend_ledger", partial(stress_ledger, rounds=OVERSPEND_ROUNDS_LEDGER)),
        Trial("overspend_workers", partial(stress_workers, rounds=OVERSPEND_ROUNDS_WORKERS)),
        Trial("collapse", partial(stress_collapse, **COLLAPSE)),
        Trial("hostile_tenant", run_hostile),
    ]
    return {trial.name: trial for trial in [*faults, *stresses]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--faults", help="names, with commas between; all if not given")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of load per fault, at least"
    )
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims")
    parser.add_argument("--json", action="store_true", help="print one JSON object to stdout")
    parser.add_argument("--list", action="store_true", help="print the names, and no more")
    options = parser.parse_args(arguments)
    known = trials(options.seconds)
    names = options.faults.split(",") if options.faults else list(known)
    if unknown := set(names) - known.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; see --list")
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
        # The servers may run as another account.
        folder.chmod(0o755)
        with ForkServer(folder) as fork_server:
            for number, trial in enumerate(chosen, 1):
                console.print(f"[{number}/{len(chosen)}] {trial.name} ...", end=" ", markup=False)
                result = _result(trial, fork_server, folder / trial.name, seed)
                console.print(
                    "wrong" if result["violations"] else "ok", f"{result['seconds']:.0f} s"
                )
                for violation in result["violations"]:
                    console.print(f"    {violation}", markup=False)
                yield result


def _result(trial: Trial, fork_server: ForkServer, folder: Path, seed: int) -> dict[str, Any]:
    began = time.monotonic()
    with _stage(trial, fork_server, folder, seed) as environment:
        try:
            outcome = asdict(trial.run(environment))
        except Exception as exc:
            # A wait that ended at its bound, or what no trial reckons with; the others are still worth running.
            outcome = {"violations": (f"{type(exc).__name__}: {exc}",)}
    seconds = round(time.monotonic() - began, 1)
    return {"fault": trial.name, **outcome, "notes": environment.notes, "seconds": seconds}


@contextmanager
def _stage(trial: Trial, fork_server: ForkServer, folder: Path, seed: int) -> Iterator[Environment]:
    with ExitStack() as stack:
        servers = folder / "servers"
        if trial.has_small_disk:
            stack.enter_context(small_disk(servers))
        services = DevServers(servers, fsync=True, valkey_persistence=trial.has_persistence)
        stack.enter_context(services)
        migrate(services.database_url)
        yield stack.enter_context(staged(services, fork_server, folder / "stage", seed))


def _show(results: Sequence[dict[str, Any]]) -> None:
    """Print one table of the faults and one of the overspend stress, if there are such."""
    stresses = [r for r in results if "rounds" in r]
    for some in ([r for r in results if r not in stresses], stresses):
        if some:
            _show_table(some)


def _show_table(results: Sequence[dict[str, Any]]) -> None:
    hidden = {"violations", "notes"}
    columns = [name for name in max(results, key=len) if name not in hidden]
    table = Table(*[name.replace("_", " ") for name in columns], "wrong")
    for result in results:
        cells = [_text(result.get(name)) for name in columns]
        table.add_row(*cells, "; ".join(result["violations"]) or "-")
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 240)
    console.print(table)
    for result in results:
        for note in result["notes"]:
            console.print(f"{result['fault']}: {note}", markup=False)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
