"""Lives of calls under faults: none breaks an invariant, and each repeats exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.fixtures import quiet_services
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.run import EVENTS, SeedResult, run_seed

__all__ = ["quiet_services"]

SEEDS = 300
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
def test_a_defect_can_be_planted(mutation: Mutation) -> None:
    """What it replaces is still there. `tests/system/test_simulation_defects.py` looks whether it is caught."""
    with mutation.plant():
        pass
