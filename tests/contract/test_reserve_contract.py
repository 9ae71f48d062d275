"""Reserving: who gets a call, under which attempt, and for how long."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budgets import RefusalReason, Window
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState, WaitReason
from callgate.domain.ledger import (
    Defer,
    DueKind,
    NotClaimed,
    Refused,
    Reject,
    Requeue,
    Reserved,
    Unstorable,
)
from tests.support.ledger_under_test import (
    LEASE_S,
    LINK,
    LedgerUnderTest,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
    open_postgres,
)

ERROR = '{"code": "test"}'


def test_a_queued_call_is_claimed(ledger: LedgerUnderTest) -> None:
    """The first attempt: running, dispatched on paper before anything leaves for a provider."""
    key = ledger.queued()

    (reserved,) = ledger.reserve(a_reserve(key, 100))

    assert isinstance(reserved, Reserved)
    assert (reserved.ref.key, reserved.attempt) == (key, 1)
    view = ledger.view(key)
    assert (view.state, view.attempt) == (CallState.RUNNING, 1)
    assert view.last is not None
    assert view.last.attempt_id == reserved.ref.attempt_id
    assert view.last.status is AttemptStatus.DISPATCHED
    assert ledger.figures() == (100, 0)


@pytest.mark.parametrize(
    ("bring", "state"),
    [
        (lambda ledger: ledger.running().key, CallState.RUNNING),
        (lambda ledger: ledger.answered().key, CallState.RUNNING),
        (lambda ledger: ledger.waiting(due_in_s=60).key, CallState.WAITING),
        (lambda ledger: ledger.succeeded().key, CallState.SUCCEEDED),
        (lambda ledger: ledger.dead().key, CallState.DEAD),
        (lambda ledger: ledger.rejected(), CallState.REJECTED),
    ],
)
def test_only_a_queued_call_can_be_claimed(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], CallKey], state: CallState
) -> None:
    """A message that is repeated or late claims nothing and changes nothing."""
    key = bring(ledger)
    call, figures = ledger.view(key), ledger.figures()

    outcomes = ledger.reserve(a_reserve(key))

    assert outcomes == [NotClaimed(key, state)]
    assert ledger.view(key) == call
    assert ledger.figures() == figures


def test_a_call_that_does_not_exist_is_not_claimed(ledger: LedgerUnderTest) -> None:
    """Not even the next generation of one that does."""
    key = CallKey(ledger.queued().call_id, 2)

    assert ledger.reserve(a_reserve(key)) == [NotClaimed(key, None)]


def test_two_messages_of_one_call_in_a_batch_claim_it_once(ledger: LedgerUnderTest) -> None:
    """The first one gets it."""
    key = ledger.queued()

    first, second = ledger.reserve(a_reserve(key), a_reserve(key))

    assert isinstance(first, Reserved)
    assert second == NotClaimed(key, CallState.RUNNING)
    assert ledger.figures() == (100, 0)


def test_outcomes_come_in_the_order_of_the_batch(ledger: LedgerUnderTest) -> None:
    """Each row is answered for itself."""
    keys = [ledger.queued(f"page {i}") for i in range(5)]
    missing = CallKey(keys[0].call_id, 9)

    outcomes = ledger.reserve(a_reserve(missing), *[a_reserve(k) for k in reversed(keys)])

    assert outcomes[0] == NotClaimed(missing, None)
    claimed = [o.ref.key for o in outcomes[1:] if isinstance(o, Reserved)]
    assert claimed == keys[::-1]
    assert ledger.reserve() == []


def test_the_same_claim_again_is_the_same_attempt(ledger: LedgerUnderTest) -> None:
    """A worker that did not hear the answer asks again and pays once."""
    reserve = a_reserve(ledger.queued(), 100)
    first = ledger.reserve(reserve)

    assert ledger.reserve(reserve) == first
    assert ledger.reserve(reserve, reserve) == first * 2
    assert ledger.view(reserve.key).attempt == 1
    assert ledger.figures() == (100, 0)


def test_the_same_claim_again_renews_the_lease(ledger: LedgerUnderTest) -> None:
    """Its deadline begins again, so the expiry must too."""
    reserve = a_reserve(ledger.queued(), expires_in_s=45)
    ledger.reserve(reserve)
    ledger.age(40)

    ledger.reserve(reserve)

    ledger.age(40)
    assert ledger.due_kinds() == []
    ledger.age(10)
    assert ledger.due_kinds() == [(DueKind.EXPIRED, reserve.key)]


def test_a_claim_that_was_taken_as_expired_cannot_be_renewed(ledger: LedgerUnderTest) -> None:
    """It may become unknown at any moment, so its worker must not send any more."""
    claim = a_reserve(ledger.queued())
    (reserved,) = ledger.reserve(claim)
    assert isinstance(reserved, Reserved)
    ledger.age(LEASE_S + 1)
    assert ledger.due_kinds() == [(DueKind.EXPIRED, claim.key)]

    (again,) = ledger.reserve(claim)

    assert again == NotClaimed(claim.key, CallState.RUNNING)
    assert ledger.settle(a_loss(reserved.ref))[0].is_applied


def test_a_claim_that_lands_again_after_its_attempt_claims_nothing(ledger: LedgerUnderTest) -> None:
    """A statement that was given up may take effect late: it must not make an attempt that nobody sends."""
    key = ledger.queued()
    claim = a_reserve(key)
    (reserved,) = ledger.reserve(claim)
    assert isinstance(reserved, Reserved)
    ledger.settle(a_loss(reserved.ref))
    ledger.requeued(key)

    (outcome,) = ledger.reserve(claim)

    assert outcome == NotClaimed(key, CallState.QUEUED)
    assert ledger.figures() == (0, 100)


def test_an_answered_attempt_is_nobodys_claim(ledger: LedgerUnderTest) -> None:
    """Its one request was made: claiming again would make a second one under it."""
    reserve = a_reserve(ledger.queued())
    (reserved,) = ledger.reserve(reserve)
    assert isinstance(reserved, Reserved)
    ledger.record(an_answer(reserved.ref))

    assert ledger.reserve(reserve) == [NotClaimed(reserve.key, CallState.RUNNING)]


def test_a_later_claim_of_the_same_worker_is_a_new_attempt(ledger: LedgerUnderTest) -> None:
    """One attempt funds one request: after it was lost, a new attempt with its own hold is needed."""
    first = ledger.lost()
    key = ledger.requeued(first.key)
    lost_by = ledger.view(first).last
    assert lost_by is not None

    (reserved,) = ledger.reserve(a_reserve(key, 100, worker_id=f"{lost_by.worker_id}+1"))

    assert isinstance(reserved, Reserved)
    assert reserved.attempt == 2
    assert reserved.ref.attempt_id != first.attempt_id
    assert ledger.figures() == (100, 100)


def test_the_lease_is_counted_by_the_ledgers_clock(ledger: LedgerUnderTest) -> None:
    """A call is left alone until its lease is over, then it is due."""
    ref = ledger.running()

    ledger.age(40)
    before = ledger.due_kinds()
    ledger.age(10)
    after = ledger.due()

    assert before == []
    assert [(due.kind, due.key, due.attempt_id) for due in after] == [
        (DueKind.EXPIRED, ref.key, ref.attempt_id)
    ]


def test_the_wait_in_the_queue_is_measured(ledger: LedgerUnderTest) -> None:
    """From when the call was queued to when it was claimed."""
    key = ledger.queued()
    ledger.age(5)

    (reserved,) = ledger.reserve(a_reserve(key))

    assert isinstance(reserved, Reserved)
    assert 5_000 <= reserved.queue_ms < 10_000
    last = ledger.view(key).last
    assert last is not None
    assert last.queue_ms == reserved.queue_ms


def test_a_worker_may_reject_what_can_never_be_dispatched(ledger: LedgerUnderTest) -> None:
    """With its own error, without a hold; those who wait for it are told at once."""
    error = json.dumps({"code": "unpriced_model", "message": "no price"})
    new = a_submission(link=LINK)
    key = ledger.submit(new)[0].key

    outcomes = ledger.reserve(Reject(key, error))

    assert outcomes == [Refused(key, CallState.REJECTED, None, "unpriced_model")]
    view = ledger.view(key)
    assert (view.state, view.error, view.attempt) == (CallState.REJECTED, error, 0)
    assert ledger.figures() == (0, 0)
    assert ledger.due() == ()
    assert [d.submission_id for d in ledger.links()] == [new.submission_id]


def test_a_worker_may_defer_a_call(ledger: LedgerUnderTest) -> None:
    """The call waits for the worker's reason and without a hold, and is due again after the wait."""
    error = json.dumps({"code": "quarantined", "message": "waits for its turn"})
    key = ledger.queued()

    outcomes = ledger.reserve(Defer(key, error, 20, WaitReason.QUARANTINE))

    assert outcomes == [Refused(key, CallState.WAITING, None, "quarantined")]
    view = ledger.view(key)
    assert (view.state, view.error, view.attempt) == (CallState.WAITING, error, 0)
    assert ledger.figures() == (0, 0)
    ledger.age(15)
    assert ledger.due_kinds() == []
    ledger.age(10)
    assert ledger.due_kinds() == [(DueKind.PUBLISH, key)]


def test_each_command_of_a_batch_has_its_own_result(ledger: LedgerUnderTest) -> None:
    """Only a claim and a requeue clear the sweeps. A defer with a wait of 0 s is still a defer."""
    keys = [ledger.queued(f"page {n}") for n in range(4)]
    for _ in range(2):
        ledger.age(5)
        ledger.ledger.take_lost_messages(limit=100, queued_before=ledger.now())
    reserved, rejected, deferred, requeued = keys

    ledger.reserve(
        a_reserve(reserved),
        Reject(rejected, ERROR),
        Defer(deferred, ERROR, 0.0, WaitReason.MEMORY),
        Requeue(requeued, ERROR),
    )

    views = [ledger.view(key) for key in keys]
    assert [(v.state, v.wait_reason, v.is_quarantined) for v in views] == [
        (CallState.RUNNING, None, False),
        (CallState.REJECTED, None, True),
        (CallState.WAITING, WaitReason.MEMORY, True),
        (CallState.WAITING, WaitReason.LOCKED, False),
    ]
    assert {due.key for due in ledger.due()} == {deferred, requeued}


def test_a_rejected_call_without_links_needs_nothing_more(ledger: LedgerUnderTest) -> None:
    """Nobody to tell: no `due_at`."""
    key = ledger.queued()

    ledger.reserve(Reject(key, '{"code": "unpriced_model"}'))

    assert ledger.view(key).due_at is None


@pytest.mark.parametrize("changes", [{"trace_id": "a\x00b"}, {"hold_nano_usd": 2**70}])
def test_a_claim_that_cannot_be_stored_stands_alone(
    postgres_engine: Engine, changes: dict[str, Any]
) -> None:
    """Postgres refuses the row; the caller may still reject the call, and the neighbours are claimed."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)
        keys = [ledger.queued(f"page {n}") for n in range(3)]
        broken = a_reserve(keys[1], **changes)

        outcomes = ledger.reserve(a_reserve(keys[0]), broken, a_reserve(keys[2]))

        assert [type(o) for o in outcomes] == [Reserved, Unstorable, Reserved]
        again = Reject(keys[1], '{"code": "claim_refused"}')
        assert ledger.reserve(again) == [
            Refused(keys[1], CallState.REJECTED, None, "claim_refused")
        ]


def test_concurrent_claims_never_overrun_a_budget(ledger: LedgerUnderTest) -> None:
    """Whatever the interleaving: ten holds of a tenth fit, the eleventh does not."""
    keys = [ledger.queued(f"page {i}") for i in range(25)]

    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(lambda key: ledger.reserve(a_reserve(key, 100))[0], keys))

    refused = [o for o in outcomes if isinstance(o, Refused)]
    assert sum(isinstance(o, Reserved) for o in outcomes) == 10
    assert {o.refusal.reason for o in refused if o.refusal} == {RefusalReason.HELD}
    assert ledger.figures() == (1_000, 0)


def test_concurrent_claims_of_one_call_make_one_attempt(ledger: LedgerUnderTest) -> None:
    """Duplicate messages race; one of them wins."""
    key = ledger.queued()

    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(lambda _: ledger.reserve(a_reserve(key, 100))[0], range(10)))

    (reserved,) = [o for o in outcomes if isinstance(o, Reserved)]
    assert ledger.view(key).attempt == 1
    assert ledger.figures() == (100, 0)
    ledger.record(an_answer(reserved.ref))
    assert ledger.settle(a_success(reserved.ref))[0].is_applied


def test_an_attempt_is_unique(ledger: LedgerUnderTest) -> None:
    """Its id is the fencing token: no two attempts of any call share it."""
    refs: list[AttemptRef] = [ledger.running(f"page {i}", 10) for i in range(10)]

    assert len({ref.attempt_id for ref in refs}) == 10


def test_a_budget_for_another_call_type_admits_nothing(ledger: LedgerUnderTest) -> None:
    """An organisation without a budget that applies to the call is refused, whatever else it has."""
    ledger.operations.set_budget("other", "call_type:elsewhere", Window.DAY, 10**9)
    (submitted,) = ledger.submit(a_submission(org_id="other"))

    (outcome,) = ledger.reserve(a_reserve(submitted.key))

    assert isinstance(outcome, Refused)
    assert outcome.refusal is not None
    assert outcome.refusal.reason is RefusalReason.NOT_CONFIGURED
