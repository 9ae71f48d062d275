"""The bound of open calls: what would create more is not stored, what a call answers is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.limits import Declaration
from callgate.domain.open_calls import OPEN_CALLS_MAX, OpenCalls
from callgate.domain.reports import CallFilter, EndReason
from tests.contract.flow_steps import WORKER
from tests.support.ledger_under_test import LedgerUnderTest, a_submission

CREATED, JOINED, BUSY = SubmitOutcome.CREATED, SubmitOutcome.JOINED, SubmitOutcome.BUSY


def bound(ledger: LedgerUnderTest, calls_max: int) -> None:
    """Let each organisation have so many open calls."""
    ledger.flow.publish(WORKER, Declaration(open_calls_max=calls_max))


def outcomes(answers: Iterable[Submitted]) -> list[SubmitOutcome]:
    """What became of submissions."""
    return [answer.outcome for answer in answers]


def cancel(ledger: LedgerUnderTest, key: CallKey) -> None:
    """End a call that is queued or waits."""
    assert ledger.operations.end([key], code=EndReason.CANCELLED, message="by a test") == [key]


def test_what_would_create_more_calls_is_not_stored(ledger: LedgerUnderTest) -> None:
    """It says how many are open, and how many may be."""
    bound(ledger, 2)
    ledger.queued("a")
    ledger.queued("b")
    (answer,) = ledger.submit(a_submission("c"))

    assert (answer.outcome, answer.lane) == (BUSY, None)
    assert answer.open_calls == OpenCalls(2, 2)
    assert ledger.count_calls() == 2


def test_a_batch_fills_what_is_free(ledger: LedgerUnderTest) -> None:
    """Duplicates of what it created join."""
    bound(ledger, 3)
    batch = [a_submission(name) for name in "abcde"]
    counted = Counter(outcomes(ledger.submit(*batch, *[a_submission(name) for name in "abcde"])))

    assert counted == {CREATED: 3, JOINED: 3, BUSY: 4}
    assert ledger.count_calls() == 3


def test_each_organisation_has_its_own_bound(ledger: LedgerUnderTest) -> None:
    bound(ledger, 1)
    batch = [a_submission(f"{n}", org_id=org_id) for n in range(2) for org_id in ("acme", "bolt")]
    answers = ledger.submit(*batch)

    created = [s.org_id for s, a in zip(batch, answers, strict=True) if a.outcome is CREATED]
    assert sorted(created) == ["acme", "bolt"]


def test_what_a_call_answers_is_not_refused(ledger: LedgerUnderTest) -> None:
    """It joins, replays, or is answered as before."""
    succeeded = ledger.succeeded("succeeded")
    dead = ledger.dead("dead")
    mine = a_submission("open")
    (first,) = ledger.submit(mine)
    bound(ledger, 1)
    names = ("open", "succeeded", "dead", "new")
    answers = ledger.submit(mine, *[a_submission(name) for name in names])

    assert outcomes(answers) == [
        CREATED, JOINED, SubmitOutcome.REPLAYED, SubmitOutcome.FAILED, BUSY,
    ]  # fmt: skip
    assert [a.key for a in answers[:4]] == [first.key, first.key, succeeded.key, dead.key]


def test_a_new_generation_is_refused(ledger: LedgerUnderTest) -> None:
    """A redrive creates a call too."""
    ledger.succeeded("succeeded")
    ledger.dead("dead")
    ledger.queued("open")
    bound(ledger, 1)
    forced = a_submission("succeeded", force=True)
    redriven = a_submission("dead", force=True, inherit_links=True)

    assert outcomes(ledger.submit(forced, redriven)) == [BUSY, BUSY]


def test_a_refused_submission_leaves_nothing(ledger: LedgerUnderTest) -> None:
    """Its id and its idempotency key may be used again."""
    bound(ledger, 1)
    first = ledger.queued("a")
    refused = a_submission("b", idempotency_key="order-7")
    assert outcomes(ledger.submit(refused)) == [BUSY]
    cancel(ledger, first)

    assert outcomes(ledger.submit(a_submission("c", idempotency_key="order-7"))) == [CREATED]
    (queued,) = ledger.operations.calls(CallFilter(state=CallState.QUEUED), limit=2)
    cancel(ledger, queued.key)
    again = a_submission("d", submission_id=refused.submission_id)
    assert outcomes(ledger.submit(again)) == [CREATED]


def test_a_refused_submission_is_stored_when_it_comes_again(ledger: LedgerUnderTest) -> None:
    bound(ledger, 1)
    first = ledger.queued("a")
    refused = a_submission("b", idempotency_key="order-7")
    ledger.submit(refused)
    cancel(ledger, first)

    assert outcomes(ledger.submit(refused)) == [CREATED]


@pytest.mark.parametrize("state", ["queued", "running", "waiting"])
def test_every_open_call_counts(ledger: LedgerUnderTest, state: str) -> None:
    getattr(ledger, state)("a")
    bound(ledger, 1)

    assert outcomes(ledger.submit(a_submission("b"))) == [BUSY]


@pytest.mark.parametrize("state", ["succeeded", "dead", "rejected"])
def test_no_ended_call_counts(ledger: LedgerUnderTest, state: str) -> None:
    getattr(ledger, state)("a")
    bound(ledger, 1)

    assert outcomes(ledger.submit(a_submission("b"))) == [CREATED]


def test_without_a_declaration_there_is_a_bound(ledger: LedgerUnderTest) -> None:
    """The default is high: nothing of an ordinary size meets it."""
    assert Declaration().open_calls_max == OPEN_CALLS_MAX == 100_000
    assert outcomes(ledger.submit(a_submission("a"))) == [CREATED]
