"""Submitting: which call answers, and when a new generation begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from callgate.domain.call_order import Lane
from callgate.domain.calls import Bodies, CallKey, CallState
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.reports import CallFilter, EndReason
from tests.support.ledger_under_test import (
    LINK,
    LedgerUnderTest,
    a_submission,
    a_success,
    an_answer,
)

Scenario = Callable[[LedgerUnderTest], CallKey]
OPEN: dict[CallState, Scenario] = {
    CallState.QUEUED: lambda ledger: ledger.queued(),
    CallState.RUNNING: lambda ledger: ledger.running().key,
    CallState.WAITING: lambda ledger: ledger.waiting(due_in_s=60).key,
}
ENDED: dict[CallState, Scenario] = {
    CallState.SUCCEEDED: lambda ledger: ledger.succeeded().key,
    CallState.DEAD: lambda ledger: ledger.dead().key,
    CallState.REJECTED: lambda ledger: ledger.rejected(),
}


def test_a_first_submission_creates_a_queued_call(ledger: LedgerUnderTest) -> None:
    """Generation 1, no attempt yet, due from the start: an open call always has a `due_at`."""
    new = a_submission()

    answers = ledger.submit(new)

    key = CallKey(new.call_id, 1)
    created = SubmitOutcome.CREATED
    assert answers == [Submitted(new.submission_id, created, key, CallState.QUEUED, Lane.CALL)]
    view = ledger.view(key)
    assert (view.state, view.attempt, view.last, view.error) == (CallState.QUEUED, 0, None, None)
    assert view.due_at == view.created_at
    assert (view.posted_nano_usd, view.worker_losses, view.is_purged) == (0, 0, False)


def test_a_call_keeps_what_was_submitted(ledger: LedgerUnderTest) -> None:
    """The request is kept byte for byte, key order, blanks and escapes included."""
    request = b'{"z": "\\u0000",  "a": 1}\xf0\x9f\x92\xb6'
    new = a_submission(
        call_type="triage", provider="azure", model="o9", input_token_bound=7, request=request
    )

    view = ledger.view(ledger.submit(new)[0].key, Bodies.REQUEST)

    assert view.request == request
    assert (view.org_id, view.input_hash) == (new.org_id, new.input_hash)
    assert (view.call_type, view.provider, view.model) == ("triage", "azure", "o9")
    assert view.input_token_bound == 7


def test_a_batch_is_answered_in_its_order(ledger: LedgerUnderTest) -> None:
    """Answers match their rows, however the ledger sorts its locks."""
    batch = [a_submission(f"page {i}") for i in range(20)]

    answers = ledger.submit(*batch)

    assert [a.submission_id for a in answers] == [new.submission_id for new in batch]
    assert [a.key.call_id for a in answers] == [new.call_id for new in batch]


def test_an_empty_batch_is_answered_with_nothing(ledger: LedgerUnderTest) -> None:
    """Nothing in, nothing out."""
    assert ledger.submit() == []


def test_two_submissions_of_one_call_in_a_batch_are_one_call(ledger: LedgerUnderTest) -> None:
    """The first creates, the second joins."""
    first, second = ledger.submit(a_submission(), a_submission())

    assert (first.outcome, second.outcome) == (SubmitOutcome.CREATED, SubmitOutcome.JOINED)
    assert first.key == second.key
    assert ledger.count_calls() == 1


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("state", OPEN)
def test_an_open_call_is_joined(ledger: LedgerUnderTest, state: CallState, force: bool) -> None:
    """Queued, running or waiting: one more submission, no second call, not even by force."""
    key = OPEN[state](ledger)
    before = ledger.view(key)

    (answer,) = ledger.submit(a_submission(force=force, link=LINK))

    assert (answer.outcome, answer.key, answer.state) == (SubmitOutcome.JOINED, key, state)
    assert ledger.view(key) == before
    assert ledger.count_calls() == 1


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (CallState.SUCCEEDED, SubmitOutcome.REPLAYED),
        (CallState.DEAD, SubmitOutcome.FAILED),
    ],
)
def test_an_ended_call_answers_again(
    ledger: LedgerUnderTest, state: CallState, outcome: SubmitOutcome
) -> None:
    """A result is replayed and a failure told again; nothing is queued, and without a link nothing is due."""
    key = ENDED[state](ledger)

    (answer,) = ledger.submit(a_submission())

    assert (answer.outcome, answer.key, answer.state) == (outcome, key, state)
    assert ledger.view(key).due_at is None
    assert ledger.count_calls() == 1


def test_a_rejected_call_is_asked_again(ledger: LedgerUnderTest) -> None:
    """Gates and budgets may decide otherwise today: the next generation, from the start."""
    rejected = ledger.rejected()

    (answer,) = ledger.submit(a_submission())

    assert answer.outcome is SubmitOutcome.CREATED
    assert answer.key == CallKey(rejected.call_id, 2)
    assert ledger.view(answer.key).attempt == 0
    assert ledger.state(rejected) is CallState.REJECTED


@pytest.mark.parametrize("state", ENDED)
def test_force_starts_the_next_generation_of_an_ended_call(
    ledger: LedgerUnderTest, state: CallState
) -> None:
    """The generation before stays as it was, readable by those who have its handle."""
    key = ENDED[state](ledger)
    before = ledger.view(key, Bodies.BOTH)

    (answer,) = ledger.submit(a_submission(force=True))

    assert (answer.outcome, answer.state) == (SubmitOutcome.CREATED, CallState.QUEUED)
    assert answer.key == CallKey(key.call_id, 2)
    assert ledger.view(key, Bodies.BOTH) == before


def test_a_purged_call_is_run_again(ledger: LedgerUnderTest) -> None:
    """Its text is gone, so it cannot answer; its figures stay."""
    key = ledger.succeeded(posted_nano_usd=60).key
    assert ledger.purge().calls == 1

    (answer,) = ledger.submit(a_submission())

    assert (answer.outcome, answer.key.generation) == (SubmitOutcome.CREATED, 2)
    purged = ledger.view(key, Bodies.BOTH)
    assert (purged.is_purged, purged.request) == (True, None)
    assert (purged.state, purged.posted_nano_usd) == (CallState.SUCCEEDED, 60)


def test_the_newest_generation_answers(ledger: LedgerUnderTest) -> None:
    """Once generation 2 is open, everybody joins it, whatever became of generation 1."""
    ledger.succeeded()
    ledger.queued(force=True)

    (answer,) = ledger.submit(a_submission())

    assert (answer.outcome, answer.key.generation) == (SubmitOutcome.JOINED, 2)


def test_tenants_never_share_a_call(ledger: LedgerUnderTest) -> None:
    """The same request of two organisations is two calls."""
    acme, zeta = ledger.submit(a_submission(), a_submission(org_id="zeta"))

    assert (acme.outcome, zeta.outcome) == (SubmitOutcome.CREATED, SubmitOutcome.CREATED)
    assert acme.key.call_id != zeta.key.call_id


def test_two_inputs_with_one_call_id_never_share_a_result(ledger: LedgerUnderTest) -> None:
    """The whole hash is compared: what does not match is not stored, its neighbours are."""
    key = ledger.succeeded().key
    other = a_submission(input_hash=b"\x00" * 32, link=LINK)

    before, collided, after = ledger.submit(a_submission("a"), other, a_submission("b"))

    assert collided.outcome is SubmitOutcome.UNSTORABLE
    assert (before.outcome, after.outcome) == (SubmitOutcome.CREATED, SubmitOutcome.CREATED)
    assert ledger.view(key).due_at is None


def test_a_call_id_is_the_one_of_its_organisation_and_hash(ledger: LedgerUnderTest) -> None:
    """A submission for one organisation under the id of another's call is not stored and hears nothing."""
    ledger.queued("invoice")
    theirs = a_submission("invoice")
    ours = replace(theirs, submission_id=uuid4(), org_id="zeta", link=LINK)

    before, refused, after = ledger.submit(
        a_submission("a", org_id="zeta"), ours, a_submission("b", org_id="zeta")
    )

    assert (refused.outcome, refused.key.generation) == (SubmitOutcome.UNSTORABLE, 0)
    assert (before.outcome, after.outcome) == (SubmitOutcome.CREATED, SubmitOutcome.CREATED)
    assert ledger.count_calls() == 3


def test_a_submission_id_of_another_call_is_refused(ledger: LedgerUnderTest) -> None:
    """It neither answers by that call nor replaces what that submission wants to be told."""
    theirs = a_submission("theirs", link=LINK)
    ledger.submit(theirs)

    (refused,) = ledger.submit(
        a_submission("ours", org_id="zeta", submission_id=theirs.submission_id, link="{}")
    )

    assert refused.outcome is SubmitOutcome.UNSTORABLE
    assert ledger.submit(theirs)[0].outcome is SubmitOutcome.CREATED


# A submission that is sent again.


def test_a_retried_submission_is_told_to_publish_while_its_call_is_unclaimed(
    ledger: LedgerUnderTest,
) -> None:
    """The client did not hear the first answer; publishing again is harmless, forgetting it is not."""
    new = a_submission()
    first = ledger.submit(new)

    assert ledger.submit(new) == first
    assert ledger.count_calls() == 1


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (CallState.RUNNING, SubmitOutcome.JOINED),
        (CallState.WAITING, SubmitOutcome.JOINED),
        (CallState.SUCCEEDED, SubmitOutcome.REPLAYED),
        (CallState.DEAD, SubmitOutcome.FAILED),
    ],
)
def test_a_retried_submission_answers_by_the_state_of_its_call(
    ledger: LedgerUnderTest, state: CallState, outcome: SubmitOutcome
) -> None:
    """The same id is the same submission, wherever its call has come to meanwhile."""
    new = a_submission()
    ledger.submit(new)
    key = {**OPEN, **ENDED}[state](ledger)

    (answer,) = ledger.submit(new)

    assert answer == Submitted(new.submission_id, outcome, key, state)


def test_a_retried_submission_never_starts_another_generation(ledger: LedgerUnderTest) -> None:
    """Neither `force` nor a rejection makes one submission ask twice."""
    ledger.succeeded()
    forced = a_submission(force=True)
    (first,) = ledger.submit(forced)
    ledger.operations.end([first.key], code=EndReason.CANCELLED, message="by a test")

    (again,) = ledger.submit(forced)

    assert again == Submitted(
        forced.submission_id, SubmitOutcome.JOINED, first.key, CallState.REJECTED
    )
    assert ledger.count_calls() == 2


def test_a_submission_repeated_within_a_batch_is_one_submission(ledger: LedgerUnderTest) -> None:
    """A client may send the same id twice at once; its link is kept once."""
    new = a_submission(link=LINK)

    first, second = ledger.submit(new, new)

    assert first == second
    ref = ledger.claim(first.key)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref))
    assert [d.submission_id for d in ledger.links(keys=[ref.key])] == [new.submission_id]


# Idempotency keys.


def test_an_idempotency_key_names_one_call(ledger: LedgerUnderTest) -> None:
    """Used for another request it is refused, and nothing of that row is stored."""
    ledger.submit(a_submission("invoice", idempotency_key="order-7"))
    other = a_submission("other", idempotency_key="order-7", link=LINK)

    before, refused, after = ledger.submit(a_submission("a"), other, a_submission("b"))

    assert refused.submission_id == other.submission_id
    assert refused.outcome is SubmitOutcome.IDEMPOTENCY_MISMATCH
    assert (before.outcome, after.outcome) == (SubmitOutcome.CREATED, SubmitOutcome.CREATED)
    assert list(ledger.ledger.read([CallKey(other.call_id, 1)])) == [None]
    assert ledger.count_calls() == 3


def test_a_refused_idempotency_key_leaves_the_submission_unknown(ledger: LedgerUnderTest) -> None:
    """The same submission without the key is stored as if it had never been sent."""
    ledger.submit(a_submission("invoice", idempotency_key="order-7"))
    other = a_submission("other", idempotency_key="order-7")
    ledger.submit(other)

    (answer,) = ledger.submit(replace(other, idempotency_key=None))

    assert answer.outcome is SubmitOutcome.CREATED


def test_an_idempotency_key_may_be_used_again_for_its_call(ledger: LedgerUnderTest) -> None:
    """A client that lost its submission id asks with its key and joins."""
    key = ledger.queued(idempotency_key="order-7")

    answers = ledger.submit(*[a_submission(idempotency_key="order-7") for _ in range(2)])

    assert [(a.outcome, a.key) for a in answers] == [(SubmitOutcome.JOINED, key)] * 2


def test_an_idempotency_key_outlives_generations(ledger: LedgerUnderTest) -> None:
    """It names the call, not the generation."""
    ledger.rejected(idempotency_key="order-7")

    again, other = ledger.submit(
        a_submission(idempotency_key="order-7"),
        a_submission("other", idempotency_key="order-7"),
    )

    assert (again.outcome, again.key.generation) == (SubmitOutcome.CREATED, 2)
    assert other.outcome is SubmitOutcome.IDEMPOTENCY_MISMATCH


def test_one_batch_cannot_use_an_idempotency_key_for_two_calls(ledger: LedgerUnderTest) -> None:
    """One of the two owns the key; the other is refused."""
    answers = ledger.submit(
        a_submission("one", idempotency_key="order-7"),
        a_submission("two", idempotency_key="order-7"),
    )

    assert sorted(a.outcome for a in answers) == [
        SubmitOutcome.CREATED,
        SubmitOutcome.IDEMPOTENCY_MISMATCH,
    ]
    assert ledger.count_calls() == 1


def test_idempotency_keys_of_two_organisations_are_strangers(ledger: LedgerUnderTest) -> None:
    """A key is unique within its organisation only."""
    ledger.queued(idempotency_key="order-7")

    (answer,) = ledger.submit(a_submission("other", org_id="zeta", idempotency_key="order-7"))

    assert answer.outcome is SubmitOutcome.CREATED


def test_a_retried_submission_does_not_refuse_its_own_idempotency_key(
    ledger: LedgerUnderTest,
) -> None:
    """A retry carries the key it used itself."""
    new = a_submission(idempotency_key="order-7")
    first = ledger.submit(new)

    assert ledger.submit(new) == first


def test_a_call_whose_redrive_succeeded_is_not_redriven_again(ledger: LedgerUnderTest) -> None:
    """A double click, or a stale list of dead letters, must not pay twice; and it is a dead letter no more."""
    dead = ledger.dead()
    (redriven,) = ledger.submit(a_submission(force=True, inherit_links=True))
    attempt = ledger.claim(redriven.key)
    ledger.record(an_answer(attempt))
    ledger.settle(a_success(attempt, 1))

    (again,) = ledger.submit(a_submission(force=True, inherit_links=True))

    assert dead.key.generation == 1
    assert (again.outcome, again.key) == (SubmitOutcome.REPLAYED, redriven.key)
    assert ledger.operations.dead_groups(CallFilter()) == []
    assert ledger.operations.snapshot().dead_letters == 0
