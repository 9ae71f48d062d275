"""The limit on the memory of large requests."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from worker.request_room import RequestRoom

ROOM = 1_000
REQUESTS = st.lists(st.tuples(st.sampled_from(["acme", "bolt", "cog"]), st.integers(0, 3_000)))


def test_one_organisation_gets_half() -> None:
    """Another can have the rest."""
    room = RequestRoom(ROOM)
    with ExitStack() as held:
        assert held.enter_context(room.taken("acme", 300))
        assert not held.enter_context(room.taken("acme", 201))
        assert held.enter_context(room.taken("acme", 200))
        assert held.enter_context(room.taken("bolt", 500))
        assert not held.enter_context(room.taken("cog", 1))
    with room.taken("cog", 500) as has_room:
        assert has_room


def test_a_request_of_any_size_finds_room_alone() -> None:
    """It counts as half of the room."""
    with RequestRoom(ROOM).taken("acme", 10 * ROOM) as has_room:
        assert has_room


@given(REQUESTS)
def test_room_is_never_exceeded_and_always_returned(requests: list[tuple[str, int]]) -> None:
    """An organisation with nothing in it is refused only if the rest is taken."""
    room = RequestRoom(ROOM)
    with ExitStack() as held:
        taken: list[tuple[str, int]] = []
        for org, size in requests:
            own = sum(n for name, n in taken if name == org)
            total, counted = sum(n for _, n in taken), min(size, ROOM // 2)
            has_room = held.enter_context(room.taken(org, size))
            assert has_room == (own + counted <= ROOM // 2 and total + counted <= ROOM)
            if has_room:
                taken.append((org, counted))
    for org in ("acme", "bolt"):
        held.enter_context(room.taken(org, ROOM // 2))
    with ExitStack() as held:
        assert all(held.enter_context(room.taken(org, ROOM // 2)) for org in ("acme", "bolt"))
