"""
Play seeds: `make simulate SEEDS=10000`, and one of them again with its trace: `make simulate SEED=123`.

ARGS: --json (one object), --from N (first seed), --lines N (of a report, at most), --faults pauses=0.3,answer_lost=0
(these for sure, so often).
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.faults import ALL, NEVER_DRAWN, OTHER_EVENTS
from tests.simulation.scheduler import Scheduler
from tests.simulation.violation import Violation
from tests.simulation.world import World, quiet

EVENTS = (*ALL, *OTHER_EVENTS)
REPORT_LINES = 60
ERROR_FRAMES = 8
"""Of an error that nobody expected: where it was raised."""
CALL_NAME = re.compile(r"\bc\d+(?=\.\d)")
"""As `Names` has them, whatever the generation."""
GENERATION = re.compile(r"\bc\d+\.\d+\b")


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What became of one seed."""

    seed: int
    trace_hash: str
    counts: Counter[str]
    steps: int
    rule: str | None = None
    """The invariant that was broken, or the error that nobody expected."""
    report: str = ""
    """What happened last, and how to see it again."""


def run_seed(
    seed: int, *, faults: Mapping[str, float] = {}, lines_max: int = REPORT_LINES
) -> SeedResult:
    """Run one seed; a report has at most so many lines."""
    world = World(seed, faults=faults)
    scheduler = world.scheduler
    rule, why = None, ""
    try:
        world.run()
    except Violation as violation:
        rule, why = violation.rule, str(violation)
    except Exception as error:
        rule, why = type(error).__name__, traceback.format_exc(limit=-ERROR_FRAMES)
    finally:
        scheduler.close()
    report = _report(seed, why, scheduler, lines_max) + _again(seed, faults) if rule else ""
    return SeedResult(seed, scheduler.trace_hash(), scheduler.counts, scheduler.steps, rule, report)


def _report(seed: int, why: str, scheduler: Scheduler, lines_max: int) -> str:
    trace = list(scheduler.trace)
    room = max(lines_max - why.count("\n") - 3, 2)
    # All of a call, and the generation that is named: it may begin in the middle.
    calls = [f"{name}." for name in sorted(set(CALL_NAME.findall(why)))]
    calls += [name for name in sorted(set(GENERATION.findall(why))) if not name.endswith(".1")]
    about = [[n for n, line in enumerate(trace) if call in line[2]] for call in calls]
    shown = _shown(len(trace), about, room)
    lines = [f"{trace[n][0]:9.3f} s  {trace[n][1]:<8} {trace[n][2]}" for n in shown]
    left_out = f"{len(trace) - len(shown)} of {len(trace)} lines are left out (--lines shows more)"
    return "\n".join([left_out, *lines, f"seed {seed}: {why}", ""])


def _again(seed: int, faults: Mapping[str, float]) -> str:
    forced = ",".join(f"{name.replace(' ', '_')}={chance:g}" for name, chance in faults.items())
    arguments = f" ARGS={shlex.quote(f'--faults {shlex.quote(forced)}')}" if forced else ""
    return f"again: make simulate SEED={seed}{arguments}"


def _shown(length: int, about: Sequence[Sequence[int]], room: int) -> list[int]:
    """The last lines, and in half of the room how each call that the violation names began and went on."""
    share = max(room // 4 // max(len(about), 1), 1)
    kept = {n for of_call in about for n in (*of_call[:share], *of_call[-share:])}
    newest = range(length - 1, -1, -1)
    kept |= set([n for n in newest if n not in kept][: room - len(kept)])
    return sorted(kept)


def main(arguments: Iterable[str] | None = None) -> int:
    """Play seeds and say how it went; 1 if an invariant was broken."""
    options = parser().parse_args(None if arguments is None else list(arguments))
    quiet()
    seeds = (
        [options.seed]
        if options.seed is not None
        else range(options.first, options.first + options.seeds)
    )
    counts: Counter[str] = Counter()
    number, steps, begun, failed = 0, 0, time.perf_counter(), None
    for seed in seeds:
        result = run_seed(seed, faults=options.faults, lines_max=options.lines)
        number += 1
        counts += result.counts
        steps += result.steps
        if result.rule:
            failed = result
            break
    elapsed_s = time.perf_counter() - begun
    summary = {
        "seeds": number,
        "first_seed": seeds[0],
        "failed_seed": failed.seed if failed else None,
        "broken": failed.rule if failed else None,
        "steps": steps,
        "seconds": round(elapsed_s, 1),
        "seeds_per_s": round(number / elapsed_s, 1),
        "trace": result.trace_hash if number == 1 else None,
        "never_happened": [event for event in EVENTS if not counts[event]],
        "events": dict(sorted(counts.items())),
    }
    if failed:
        sys.stderr.write(failed.report + "\n")
    sys.stdout.write(json.dumps(summary) + "\n" if options.json else _for_people(summary))
    return 1 if failed else 0


def _for_people(summary: dict[str, object]) -> str:
    events = summary.pop("events")
    assert isinstance(events, dict)
    lines = [f"{count:>10}  {event}" for event, count in events.items()]
    lines += [", ".join(f"{name} {value}" for name, value in summary.items())]
    return "\n".join(lines) + "\n"


def _faults(text: str) -> dict[str, float]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    chances = {name.replace("_", " "): float(chance) for name, _, chance in pairs}
    if unknown := chances.keys() - ALL.keys() - {*NEVER_DRAWN}:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(sorted(unknown))}")
    return chances


def parser() -> argparse.ArgumentParser:
    """What `main` understands."""
    known = argparse.ArgumentParser(prog="make simulate")
    known.add_argument("--seeds", type=int, default=1_000)
    known.add_argument("--seed", type=int, help="run this one, and show its trace if it fails")
    known.add_argument("--from", type=int, default=0, dest="first")
    known.add_argument("--faults", type=_faults, default={}, help="these for sure: name=chance,...")
    known.add_argument("--lines", type=int, default=REPORT_LINES, help="of a report, at most")
    known.add_argument("--json", action="store_true")
    return known


if __name__ == "__main__":
    sys.exit(main())
