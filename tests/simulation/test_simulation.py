"""Lives of calls under faults: none breaks an invariant, each repeats exactly, and planted defects are caught."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.fixtures import quiet_services
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.run import EVENTS, REPORT_LINES, SeedResult, parser, run_seed

__all__ = ["quiet_services"]

SEEDS = 300
MUTANT_SEEDS_MAX = 400
FATE = re.compile(r": [a-z' ]+$")
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lives() -> list[SeedResult]:
    """Seeds 0, 1, 2, ..., run once for all tests."""
    return [run_seed(seed) for seed in range(SEEDS)]


def test_no_life_breaks_an_invariant(lives: list[SeedResult]) -> None:
    """See `tests/simulation/invariants.py` for what is checked, at every step and at the end."""
    assert [life.report for life in lives if life.rule] == []


@pytest.mark.parametrize("page", ["README.md", "docs/guarantees.md"])
def test_the_pages_say_how_many_defects_are_planted(page: str) -> None:
    assert f" {len(MUTATIONS)} defects" in (CHECKOUT / page).read_text("utf-8")


def test_every_fault_and_every_event_happens(lives: list[SeedResult]) -> None:
    """A fault that never happens proves nothing."""
    counts: Counter[str] = sum((life.counts for life in lives), Counter())

    assert [event for event in EVENTS if not counts[event]] == []


def test_a_seed_repeats_its_life(lives: list[SeedResult]) -> None:
    """To the last line of the trace; another seed lives another life."""
    hashes = [life.trace_hash for life in lives[:5]]

    assert [run_seed(seed).trace_hash for seed in range(5)] == hashes
    assert len(set(hashes)) == 5


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_repeats_its_life_in_another_process(
    lives: list[SeedResult], hash_seed: str
) -> None:
    """Whatever the order in which Python hashes."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", "--seed", "3", "--json"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    )

    assert json.loads(ran.stdout)["trace"] == lives[3].trace_hash


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.name}--{m.rules[0]}")
def test_a_planted_defect_is_caught(mutation: Mutation) -> None:
    """By the invariant it breaks; and the seed that caught it catches it again, with the same trace."""
    with mutation.plant():
        seeds = [*range(mutation.seed, MUTANT_SEEDS_MAX), *range(mutation.seed)]
        results = (run_seed(seed, faults=mutation.faults) for seed in seeds)
        caught = next((life for life in results if life.rule), None)
        assert caught is not None, f"{MUTANT_SEEDS_MAX} seeds did not notice"
        again = run_again(caught.report)

    assert caught.rule in mutation.rules, caught.report
    assert again.report == caught.report
    assert_tells_what_happened(caught.report)


def run_again(report: str) -> SeedResult:
    """Do what the last line of a report says."""
    seed, arguments = [*shlex.split(report.splitlines()[-1].partition("SEED=")[2]), ""][:2]
    options = parser().parse_args(["--seed", seed, *shlex.split(arguments.removeprefix("ARGS="))])
    return run_seed(options.seed, faults=options.faults)


def assert_tells_what_happened(report: str) -> None:
    """Short, without idle lines; each call that the violation names is in it from its submission on."""
    _, *lines, why, again = report.splitlines()
    told = [line.split(maxsplit=3)[3] for line in lines]

    assert again.startswith("again: ")
    assert len(report.splitlines()) <= REPORT_LINES
    assert not [
        line
        for line in told
        if line.startswith(("leases.renew w", "publishes sweep")) and not FATE.search(line)
    ]
    idle = ("take_due", "take_lost_messages", "settle", "deliver")
    assert not [line for line in told if line.rstrip(" ->") in idle]
    assert not [line for line in told if re.search(r"\bstr\b|NewSubmission|callview", line)]
    for call in re.findall(r"\bc\d+\.\d+\b", why):
        submitted = rf"submit .*(created|joined|replayed|failed) {re.escape(call)},"
        assert [line for line in told if re.match(submitted, line)], call
