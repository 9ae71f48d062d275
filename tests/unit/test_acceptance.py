"""Waiting for room: with pauses that grow, until a timeout, and never until a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from callgate.domain.bounds import ROWS_MAX
from callgate.domain.calls import CallKey, CallState
from callgate.domain.errors import IdempotencyMismatch, OrganisationBusy
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.open_calls import PAUSE_MAX_S, OnBusy, OpenCalls, busy_pause_s
from callgate.services.acceptance import Acceptance
from tests.support.ledger_under_test import a_submission


class Store:
    """Has room for so many submissions."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.batches: list[list[NewSubmission]] = []

    def __call__(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """Store as many as there is room for."""
        self.batches.append(list(batch))
        return [self._answer(new) for new in batch]

    def _answer(self, new: NewSubmission) -> Submitted:
        key = CallKey(new.call_id, 1)
        if new.idempotency_key is not None:
            outcome = SubmitOutcome.IDEMPOTENCY_MISMATCH
            return Submitted(new.submission_id, outcome, key, CallState.REJECTED)
        if self.room == 0:
            busy = Submitted(new.submission_id, SubmitOutcome.BUSY, key, CallState.REJECTED)
            return replace(busy, open_calls=OpenCalls(7, 7))
        self.room -= 1
        return Submitted(new.submission_id, SubmitOutcome.CREATED, key, CallState.QUEUED)


def submissions(count: int) -> list[NewSubmission]:
    """A batch."""
    return [a_submission(f"{n}") for n in range(count)]


def waiting(store: Store, batch: list[NewSubmission], timeout_s: float = 60.0) -> Acceptance:
    """An acceptance that waits."""
    return Acceptance(store, batch, OnBusy.WAIT, timeout_s)


def test_what_has_room_is_stored_in_one_step() -> None:
    batch = submissions(3)
    acceptance = Acceptance(Store(3), batch)

    assert acceptance.step(0.0, 0.5) is None
    assert [a.submission_id for a in acceptance.answers] == [s.submission_id for s in batch]


def test_without_room_it_raises() -> None:
    """It says how many calls are open, and how many may be."""
    with pytest.raises(OrganisationBusy, match="has 7 open calls and may have 7") as caught:
        Acceptance(Store(1), submissions(2)).step(0.0, 0.5)

    assert (caught.value.org_id, caught.value.open_calls) == ("acme", 7)


def test_it_waits_until_there_is_room() -> None:
    """What is stored is not submitted again."""
    store, batch = Store(1), submissions(3)
    acceptance = waiting(store, batch)
    assert acceptance.step(0.0, 0.5)
    store.room = 2

    assert acceptance.step(1.0, 0.5) is None
    assert store.batches[1] == batch[1:]
    assert [a.key.call_id for a in acceptance.answers] == [s.call_id for s in batch]


def test_pauses_grow_and_begin_again_after_progress() -> None:
    store = Store()
    acceptance = waiting(store, submissions(2))
    pauses = [acceptance.step(0.0, 0.5) for _ in range(6)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0]
    store.room = 1

    assert acceptance.step(0.0, 0.5) == 0.25


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.5), (0.5, 1.0), (0.999, 1.499)])
def test_pauses_are_spread(jitter: float, share: float) -> None:
    """Also the longest, and after any number of tries."""
    assert busy_pause_s(10_000, jitter) == pytest.approx(PAUSE_MAX_S * share)


def test_it_gives_up_at_the_timeout() -> None:
    """After a last try."""
    acceptance = waiting(Store(), submissions(1), timeout_s=1.0)
    assert acceptance.step(0.0, 0.5) == 0.25
    assert acceptance.step(0.9, 0.5) == pytest.approx(0.1)

    with pytest.raises(OrganisationBusy):
        acceptance.step(1.0, 0.5)


def test_it_does_not_wait_until_a_deadline() -> None:
    """The call could not be sent any more. Until then it is submitted with the time that is left."""
    store = Store()
    acceptance = waiting(store, [replace(a_submission(), start_within_s=10.0)])
    acceptance.step(0.0, 0.5)
    acceptance.step(6.0, 0.5)
    assert [batch[0].start_within_s for batch in store.batches] == [10.0, 4.0]

    with pytest.raises(OrganisationBusy):
        acceptance.step(9.5, 0.5)


def test_a_row_that_is_refused_for_its_own_sake_is_not_waited_with() -> None:
    batch = [a_submission("a"), a_submission("b", idempotency_key="order-7")]

    with pytest.raises(IdempotencyMismatch):
        waiting(Store(), batch).step(0.0, 0.5)


def test_a_large_batch_asks_for_room_with_one_statement() -> None:
    store = Store()
    acceptance = waiting(store, submissions(ROWS_MAX + 5))
    acceptance.step(0.0, 0.5)
    acceptance.step(0.0, 0.5)

    assert [len(batch) for batch in store.batches] == [ROWS_MAX + 5, ROWS_MAX]
