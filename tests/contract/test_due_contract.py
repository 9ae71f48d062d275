"""What falls due: nothing that was accepted is ever left lying."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from callgate.domain.calls import AttemptStatus, CallState, WaitReason
from callgate.domain.ledger import Defer, Due, DueKind, RecordOutcome, Reserved
from tests.support.ledger_under_test import (
    LEASE_S,
    LINK,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)


def lost_messages(ledger: LedgerUnderTest, before: datetime) -> set[tuple[DueKind, object]]:
    """Take the queued calls that were due before a moment."""
    batch = ledger.ledger.take_lost_messages(limit=100, queued_before=before)
    return {(due.kind, due.key) for due in batch.items}


def test_nothing_is_due_in_an_empty_ledger(ledger: LedgerUnderTest) -> None:
    """The answer still says when it was given, by the ledger's clock."""
    before = ledger.now()

    batch = ledger.ledger.take_due(limit=10)

    assert batch.items == ()
    assert before <= batch.at <= ledger.now()


def test_a_waiting_call_is_queued_when_its_time_has_come(ledger: LedgerUnderTest) -> None:
    """Not before; then it is published, and is nobody's any more until it is claimed."""
    ref = ledger.waiting(due_in_s=20)
    ledger.age(15)
    early = ledger.due_kinds()
    ledger.age(10)

    due = ledger.due_kinds()

    assert (early, due) == ([], [(DueKind.PUBLISH, ref.key)])
    view = ledger.view(ref.key)
    assert view.state is CallState.QUEUED
    assert view.due_at is not None
    assert abs((view.due_at - ledger.now()).total_seconds()) < 2
    assert ledger.due_kinds() == []


def test_a_queued_call_is_not_due_by_itself(ledger: LedgerUnderTest) -> None:
    """A long queue is no reason to publish everything again."""
    ledger.queued()
    ledger.age(3_600)

    assert ledger.due_kinds() == []


def test_an_expired_attempt_is_due(ledger: LedgerUnderTest) -> None:
    """It has expired; the caller that takes it decides what the call does next."""
    ref = ledger.running()
    ledger.age(LEASE_S + 1)

    assert ledger.due() == (Due(DueKind.EXPIRED, ref.key, ref.attempt_id),)
    assert ledger.state(ref.key) is CallState.RUNNING


def test_expired_attempts_are_left_alone_on_demand(ledger: LedgerUnderTest) -> None:
    """After an outage of the ledger nobody may call an attempt lost; it stays due for later."""
    ref = ledger.running()
    ledger.age(LEASE_S + 1)

    assert ledger.due(expire=False) == ()

    assert ledger.due_kinds(expire=True) == [(DueKind.EXPIRED, ref.key)]


def test_an_expired_attempt_takes_no_place_in_a_batch_that_leaves_it(
    ledger: LedgerUnderTest,
) -> None:
    """What may not be expired must not hide what can be moved."""
    for page in range(3):
        ledger.running(f"page {page}")
    ledger.age(LEASE_S + 1)
    waiting = ledger.waiting("waiting")

    (due,) = ledger.due(limit=1, expire=False)

    assert due.key == waiting.key


@pytest.mark.parametrize("expire", [False, True])
def test_an_answered_attempt_that_was_never_settled_is_due(
    ledger: LedgerUnderTest, expire: bool
) -> None:
    """Its log message was lost; settling loses nothing, so it is always allowed."""
    ref = ledger.answered()
    ledger.age(LEASE_S + 1)

    assert ledger.due(expire=expire) == (Due(DueKind.SETTLE, ref.key, ref.attempt_id),)


@pytest.mark.parametrize("kind", [DueKind.EXPIRED, DueKind.SETTLE])
def test_what_was_taken_is_lent_for_ten_seconds(ledger: LedgerUnderTest, kind: DueKind) -> None:
    """Nobody else gets it meanwhile; if its taker vanishes, it is due again."""
    ledger.running() if kind is DueKind.EXPIRED else ledger.answered()
    ledger.age(LEASE_S + 1)

    first = ledger.due()
    at_once = ledger.due()
    ledger.age(7)
    soon = ledger.due()
    ledger.age(5)
    later = ledger.due()

    assert [due.kind for due in first] == [kind]
    assert (at_once, soon) == ((), ())
    assert later == first


def test_the_oldest_are_taken_first(ledger: LedgerUnderTest) -> None:
    """Up to `limit`, in the order in which they fell due."""
    keys = [ledger.waiting(f"in {s} s", due_in_s=s).key for s in (3, 1, 2)]
    ledger.age(5)

    taken = [ledger.due(limit=1)[0].key, *[due.key for due in ledger.due(limit=5)]]

    assert taken == [keys[1], keys[2], keys[0]]


def test_concurrent_takers_share_what_is_due(ledger: LedgerUnderTest) -> None:
    """No two get the same call, and together they get all of them."""
    keys = {ledger.waiting(f"page {i}").key for i in range(20)}
    ledger.age(1)

    with ThreadPoolExecutor(5) as pool:
        batches = list(pool.map(lambda _: ledger.due(limit=4), range(15)))

    taken = [due.key for batch in batches for due in batch]
    assert len(taken) == len(set(taken))
    assert set(taken) == keys


# Lost messages.


def test_a_queued_call_whose_message_was_lost_is_published_again(
    ledger: LedgerUnderTest,
) -> None:
    """It was queued before the sweep was sent and is queued still: its message never arrived."""
    lost = ledger.queued("lost")
    ledger.age(5)
    sent_at = ledger.ledger.take_due(limit=1).at
    ledger.queued("behind the sweep")

    assert lost_messages(ledger, sent_at) == {(DueKind.PUBLISH, lost)}
    assert lost_messages(ledger, sent_at) == set()


def test_sweeps_of_a_call_are_counted_until_somebody_looks_into_it(
    ledger: LedgerUnderTest,
) -> None:
    """A claim or a refusal proves that a worker can read it. A deferral proves nothing."""
    key, mate = ledger.queued("found twice"), ledger.queued("found as often")
    for _ in range(2):
        assert not ledger.view(key).is_quarantined
        ledger.age(5)
        ledger.ledger.take_lost_messages(limit=100, queued_before=ledger.now())
    assert ledger.view(key).is_quarantined
    assert ledger.view(key).sweeps == 2

    ledger.reserve(Defer(key, '{"code": "quarantined"}', 1.0, WaitReason.QUARANTINE))
    ledger.age(1)
    deferred = ledger.view(ledger.requeued(key))
    ledger.claim(key)
    ledger.reserve(a_reserve(mate, 10**12))

    assert (deferred.sweeps, deferred.is_quarantined) == (2, True)
    assert [ledger.view(k).sweeps for k in (key, mate)] == [0, 0]
    assert ledger.state(mate) is CallState.REJECTED


def test_a_claim_without_a_hold_that_has_expired_counts_as_lost(ledger: LedgerUnderTest) -> None:
    """So a call is counted that killed its process before its claim; it costs nothing."""
    ref = ledger.reserve(a_reserve(ledger.queued(), 0, expires_in_s=0.0))[0]
    assert isinstance(ref, Reserved)
    ledger.age(0.01)

    (due,) = ledger.due()
    ledger.settle(a_loss(ref.ref, 0))

    assert due == Due(DueKind.EXPIRED, ref.ref.key, ref.ref.attempt_id)
    view = ledger.view(ref.ref.key)
    assert (view.worker_losses, view.posted_nano_usd, ledger.figures()) == (1, 0, (0, 0))


def test_a_sweep_moves_nothing_else(ledger: LedgerUnderTest) -> None:
    """Whatever else is due is left to the due query."""
    waiting, running = ledger.waiting("waiting"), ledger.running("running")
    ledger.succeeded("ended", link=LINK)
    ledger.age(LEASE_S + 1)

    assert lost_messages(ledger, ledger.now()) == set()

    kinds = [(DueKind.EXPIRED, running.key), (DueKind.PUBLISH, waiting.key)]
    assert sorted(ledger.due_kinds())[-2:] == sorted(kinds)


def test_a_requeued_call_counts_from_its_own_message(ledger: LedgerUnderTest) -> None:
    """Its retry was published just now; an older sweep must not publish it again."""
    ref = ledger.waiting()
    ledger.age(60)
    sent_at = ledger.now()
    ledger.age(1)
    ledger.requeued(ref.key)

    assert lost_messages(ledger, sent_at) == set()


def test_a_sweep_takes_the_oldest_up_to_its_limit(ledger: LedgerUnderTest) -> None:
    """A wiped broker is refilled at a bounded rate."""
    oldest = ledger.queued("oldest")
    ledger.age(1)
    ledger.queued("newer")
    ledger.age(1)

    batch = ledger.ledger.take_lost_messages(limit=1, queued_before=ledger.now())

    assert [due.key for due in batch.items] == [oldest]


# Attempts that no call waits for any more.


def test_a_late_answer_that_was_never_settled_is_due(ledger: LedgerUnderTest) -> None:
    """Its log message was lost too; it comes back every ten seconds until it is settled."""
    ref = ledger.running()
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    assert ledger.record(an_answer(ref)) == [RecordOutcome.LATE]
    early = ledger.due()
    ledger.age(11)

    expected = (Due(DueKind.SETTLE, ref.key, ref.attempt_id),)
    assert early == ()
    assert ledger.due() == expected
    assert ledger.due() == ()
    ledger.age(11)
    assert ledger.due(expire=False) == expected
    ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))
    ledger.age(60)
    assert ledger.due() == ()


def test_late_answers_count_towards_the_limit(ledger: LedgerUnderTest) -> None:
    """A batch is never larger than its taker asked for; no call is skipped each time."""
    late, waiting = ledger.lost("late"), ledger.waiting("waiting", due_in_s=3_600)
    ledger.requeued(late.key)
    ledger.record(an_answer(late))
    ledger.age(3_601)

    first, second = ledger.due(limit=1), ledger.due(limit=1)

    assert {due.key for due in first + second} == {late.key, waiting.key}
    assert (len(first), len(second)) == (1, 1)


@pytest.mark.parametrize("link", [None, LINK])
def test_a_hold_of_an_overtaken_attempt_is_never_forgotten(
    ledger: LedgerUnderTest, link: str | None
) -> None:
    """Its call ended by an earlier attempt, then its worker vanished: its money still comes to a posting."""
    first = ledger.lost(link=link)
    second = ledger.claim(ledger.requeued(first.key), 70)
    ledger.record(an_answer(first))
    (settled,) = ledger.settle(a_success(first, 60, expected_status=AttemptStatus.UNKNOWN))
    ledger.deliver(*(d.submission_id for d in ledger.links(keys=[settled.ref.key])))
    assert ledger.figures() == (70, 60)
    ledger.age(LEASE_S + 11)

    assert ledger.due(expire=False) == ()
    due = ledger.due()

    assert due == (Due(DueKind.EXPIRED, second.key, second.attempt_id),)
    (settled,) = ledger.settle(a_loss(second, 70))
    assert (settled.is_applied, settled.state) == (True, CallState.SUCCEEDED)
    assert ledger.figures() == (0, 130)
    assert ledger.view(first.key).due_at is None


def test_an_answer_of_an_overtaken_attempt_is_never_forgotten(ledger: LedgerUnderTest) -> None:
    """The same, if it was answered and only its log message was lost."""
    first = ledger.lost()
    second = ledger.claim(ledger.requeued(first.key), 70)
    ledger.record(an_answer(first), an_answer(second))
    ledger.settle(a_success(first, 60, expected_status=AttemptStatus.UNKNOWN))
    ledger.age(LEASE_S + 11)

    due = ledger.due(expire=False)

    assert due == (Due(DueKind.SETTLE, second.key, second.attempt_id),)
    ledger.settle(a_failure(second, posted_nano_usd=5))
    assert ledger.figures() == (0, 65)
    assert ledger.view(first.key).due_at is None


@pytest.mark.parametrize("told", ["at the end", "by a replay"])
def test_an_overtaken_attempt_keeps_its_lease(ledger: LedgerUnderTest, told: str) -> None:
    """Until then it may send: links of its call that fall due earlier must not make it unknown."""
    first = ledger.lost(link=LINK if told == "at the end" else None)
    ledger.claim(ledger.requeued(first.key), 70)
    ledger.record(an_answer(first))
    (settled,) = ledger.settle(a_success(first, 60, expected_status=AttemptStatus.UNKNOWN))
    ledger.deliver(*(d.submission_id for d in ledger.links(keys=[settled.ref.key])))
    if told == "by a replay":
        ledger.submit(a_submission(link=LINK))

    kinds = []
    for _ in range(3):
        ledger.age(11)
        kinds += ledger.due_kinds()

    assert (kinds, ledger.figures()) == ([], (70, 60))
    ledger.age(LEASE_S)
    assert [kind for kind, _ in ledger.due_kinds()] == [DueKind.EXPIRED]
