"""The simulation catches defects that would let a hostile tenant stop others. It takes two minutes."""

from __future__ import annotations

import pytest

from tests.simulation.fixtures import quiet_services
from tests.simulation.hostile import live
from tests.simulation.mutations.hostile import MUTATIONS, HostileMutation

__all__ = ["quiet_services"]

MUTANT_LIVES_MAX = 40

pytestmark = pytest.mark.timeout(600)
"""A life of a hostile tenant has thousands of calls: some lives are a minute of CPU."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.name}--{m.rules[0]}")
def test_a_planted_defect_is_caught(mutation: HostileMutation) -> None:
    """A promise to the other tenants is broken."""
    with mutation.plant():
        lived = (live(seed) for seed in range(MUTANT_LIVES_MAX))
        caught = next((life for life in lived if life.rule), None)

    assert caught is not None, f"{MUTANT_LIVES_MAX} lives did not notice"
    assert caught.rule in mutation.rules, caught.report
