"""Ten minutes without a provider, 500 queued calls: none dies, at most ten holds are posted, operators are told."""

from __future__ import annotations

import pytest

from tests.simulation.measure import CALLS, SEVERAL, measure

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("kind", "orgs"), [("server error", SEVERAL), ("reset", ("acme",))], ids=["503", "reset"]
)
def test_an_outage_of_ten_minutes(kind: str, orgs: tuple[str, ...]) -> None:
    """The other two of the four that `python -m tests.simulation.measure` runs differ in nothing that is asserted."""
    measured = measure(kind, orgs)

    assert measured.states == {"succeeded": CALLS}
    assert measured.holds_posted <= 10
    assert measured.requests == CALLS + measured.requests_in_outage
    assert measured.failures_when_told == (3,)
    assert measured.unknown_per_call_max == 1
    assert measured.orgs_asked >= min(len(orgs), 5), "not in turn"
