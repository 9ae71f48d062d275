"""How organisations share the slots of the workers: the rule as properties."""

from __future__ import annotations

import random
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from callgate.domain.slots import (
    AHEAD_MAX,
    AHEAD_MIN,
    CLEARLY_BELOW,
    OrgWork,
    ahead_max,
    gives_way,
    released,
    share_of,
)

SLOTS = st.integers(1, 40)
COUNTS = st.integers(0, 30)
WORK = st.builds(
    lambda running, queued, asking: OrgWork(running, queued, min(queued, asking)),
    *(COUNTS, COUNTS, COUNTS),
)
OTHERS = st.lists(WORK, max_size=5)


@given(SLOTS, st.lists(COUNTS, min_size=1, max_size=6))
def test_shares_are_equal_and_leave_no_slot(slots: int, usable: list[int]) -> None:
    """Who wants less has what it wants, and all others have the same."""
    share = share_of(slots, usable)

    if sum(usable) < slots:
        assert share == inf
    else:
        assert abs(sum(min(share, want) for want in usable) - slots) < 1e-6
        assert max(usable) >= share


@given(SLOTS, WORK, OTHERS)
def test_a_claim_gives_way_only_to_those_that_take_all_free_slots(
    slots: int, mine: OrgWork, others: list[OrgWork]
) -> None:
    """Each of them has less than the claim's organisation, which has its share."""
    if not gives_way(slots, mine, others):
        return
    share = share_of(slots, [mine.usable, *(other.usable for other in others)])
    below = [other for other in others if other.running < CLEARLY_BELOW * share]

    assert mine.running >= share
    free = slots - mine.running - sum(other.running for other in others)
    assert sum(other.asking for other in below) >= max(1, free)


@given(SLOTS, COUNTS, OTHERS)
def test_who_has_least_does_not_give_way(slots: int, queued: int, others: list[OrgWork]) -> None:
    """So with each slot that is free, some organisation goes on."""
    least = min((other.running for other in others), default=0)
    assert not gives_way(slots, OrgWork(least, queued + 1, 1), others)


@given(st.integers(1, 100), st.integers(1, 1_000))
def test_a_single_call_takes_the_next_slot(slots: int, many: int) -> None:
    """Of those that another organisation holds."""
    flood = OrgWork(slots, many, many)
    assert gives_way(slots, flood, [OrgWork(0, 1, 1)])
    assert not gives_way(slots, OrgWork(0, 1, 1), [flood])


@settings(deadline=None, max_examples=40)
@given(st.integers(4, 64), st.lists(st.integers(1, 5), min_size=2, max_size=6), st.integers(0, 99))
def test_all_come_to_their_share(slots: int, lengths: list[int], seed: int) -> None:
    """One organisation holds all slots at first. Each has any number of calls, of different duration."""
    rng = random.Random(seed)  # noqa: S311 - a drawn course, not a secret
    running = [slots] + [0] * (len(lengths) - 1)
    share, seen = slots / len(lengths), [0.0] * len(lengths)
    for step in range(60 * slots):
        # Short calls end more often.
        ends = [count / length for count, length in zip(running, lengths, strict=True)]
        running[rng.choices(range(len(lengths)), ends)[0]] -= 1
        turns = rng.sample(range(len(lengths)), len(lengths))
        takers = [org for org in turns if not _gives_way(slots, running, org)]
        assert takers, "a slot stays free"
        running[takers[0]] += 1
        if step >= 50 * slots:
            seen = [total + count for total, count in zip(seen, running, strict=True)]

    assert min(seen) / (10 * slots) >= CLEARLY_BELOW * share - 1.5


def _gives_way(slots: int, running: list[int], org: int) -> bool:
    work = [OrgWork(count, 100, 100) for count in running]
    return gives_way(slots, work.pop(org), work)


@given(st.none() | st.integers(0, 5_000), WORK, OTHERS)
def test_the_queue_of_an_organisation_is_bounded(
    slots: int | None, mine: OrgWork, others: list[OrgWork]
) -> None:
    """By the number of slots; while they are short, an organisation that has its share gets nothing queued."""
    number = released(slots, mine, others)

    assert AHEAD_MIN <= ahead_max(slots) <= AHEAD_MAX
    assert 0 <= number <= max(0, ahead_max(slots) - mine.queued)
    if slots is None or not others:
        assert number or mine.queued > 0.75 * ahead_max(slots)


def test_what_is_released_fills_the_share() -> None:
    """And some more, so that a slot does not wait for the next look."""
    other = OrgWork(60, 20, 20)
    assert released(64, OrgWork(4, 0), [other]) == 32 - 4 + 8
    assert released(64, OrgWork(32, 0), [other]) == 0
    assert released(64, OrgWork(31, 8), [other]) == 0
    assert released(64, OrgWork(31, 6), [other]) == 3
