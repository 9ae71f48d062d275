"""Lives beside a hostile tenant: the others keep their share. `test_hostile_defects.py` plants defects."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.attacks import ATTACKS
from tests.simulation.fixtures import quiet_services
from tests.simulation.hostile import Lived, live

__all__ = ["quiet_services"]

LIVES = 8
SHARE_MIN = 2 / 3
"""Of what the others get done without the tenant, over all lives: two of three organisations keep two thirds."""

pytestmark = pytest.mark.timeout(600)
"""A life of a hostile tenant has thousands of calls: some lives are a minute of CPU."""


@pytest.fixture(scope="module")
def lives() -> list[Lived]:
    """Each seed lived with the tenant and without."""
    return [live(seed) for seed in range(LIVES)]


def test_nobody_is_harmed(lives: list[Lived]) -> None:
    """See `TenantInvariants` for what is promised."""
    assert [life.report for life in lives if life.rule] == []


def test_the_others_keep_their_share(lives: list[Lived]) -> None:
    """Counted in calls that end while the attack lasts."""
    assert sum(life.done for life in lives) >= SHARE_MIN * sum(life.done_alone for life in lives)


def test_every_attack_is_made_and_meets_something(lives: list[Lived]) -> None:
    """An attack that hits nothing proves nothing."""
    counts: Counter[str] = sum((Counter(life.counts) for life in lives), Counter())
    hits = ("row held", "call task: locked", "link refused", "check given up", "key refused")
    events = [*(f"attack: {attack.__name__}" for attack in ATTACKS), *hits, "process died"]

    assert [event for event in events if not counts[event]] == []


def test_a_life_repeats(lives: list[Lived]) -> None:
    """To the last line of its trace."""
    assert live(0).trace_hash == lives[0].trace_hash
