"""How large a column may be: exactly its bound is taken, one more is refused as that row's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callgate.domain import bounds
from callgate.domain.calls import CallState
from callgate.domain.errors import InvalidRequest
from callgate.domain.identity import call_id
from callgate.domain.ledger import (
    NewSubmission,
    RecordOutcome,
    Refused,
    Reject,
    Reserved,
    SubmitOutcome,
    Unstorable,
)
from callgate.domain.reports import EndReason
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)

SUBMITTED: dict[str, tuple[Any, Any]] = {
    "call_type": ("n" * bounds.NAME_CHARS_MAX, "n" * (bounds.NAME_CHARS_MAX + 1)),
    "provider": ("n" * bounds.NAME_CHARS_MAX, "n" * (bounds.NAME_CHARS_MAX + 1)),
    "model": ("n" * bounds.NAME_CHARS_MAX, "n" * (bounds.NAME_CHARS_MAX + 1)),
    "input_token_bound": (bounds.INPUT_TOKENS_MAX, bounds.INPUT_TOKENS_MAX + 1),
    "no less than no tokens": (0, -1),
    "idempotency_key": (
        "ü" * bounds.IDEMPOTENCY_KEY_CHARS_MAX,
        "ü" * (bounds.IDEMPOTENCY_KEY_CHARS_MAX + 1),
    ),
    "link": ("ü" * (bounds.LINK_MAX_BYTES // 2), "ü" * (bounds.LINK_MAX_BYTES // 2) + "x"),
}
RECORDED = {
    "error": ("x" * bounds.ERROR_MAX_BYTES, "x" * (bounds.ERROR_MAX_BYTES + 1)),
    "provider_request_id": ("r" * bounds.NAME_CHARS_MAX, "r" * (bounds.NAME_CHARS_MAX + 1)),
}
CLAIMED = {
    "worker_id": ("w" * bounds.PROCESS_CHARS_MAX, "w" * (bounds.PROCESS_CHARS_MAX + 1)),
    "price_source": ("s" * bounds.SOURCE_CHARS_MAX, "s" * (bounds.SOURCE_CHARS_MAX + 1)),
    "trace_id": ("ü" * bounds.TRACE_ID_CHARS_MAX, "ü" * (bounds.TRACE_ID_CHARS_MAX + 1)),
    "credential": ("c" * bounds.NAME_CHARS_MAX, "c" * (bounds.NAME_CHARS_MAX + 1)),
}
SETTLED = {
    "service_tier": ("t" * bounds.NAME_CHARS_MAX, "t" * (bounds.NAME_CHARS_MAX + 1)),
    "error": ("x" * bounds.ERROR_MAX_BYTES, "x" * (bounds.ERROR_MAX_BYTES + 1)),
    "error_fingerprint": (
        "f" * bounds.FINGERPRINT_CHARS_MAX,
        "f" * (bounds.FINGERPRINT_CHARS_MAX + 1),
    ),
}


def changed(content: str, column: str, value: Any) -> NewSubmission:
    """A submission with one column at a value."""
    name = "input_token_bound" if column.startswith("no less") else column
    return a_submission(content, **{name: value})


@pytest.mark.parametrize("column", SUBMITTED)
def test_a_submission_is_taken_up_to_the_bound(ledger: LedgerUnderTest, column: str) -> None:
    """And its neighbours whatever it is like."""
    largest, larger = SUBMITTED[column]

    outcomes = [
        answer.outcome
        for answer in ledger.submit(
            a_submission("before"),
            changed("largest", column, largest),
            changed("larger", column, larger),
            a_submission("behind"),
        )
    ]

    created, refused = SubmitOutcome.CREATED, SubmitOutcome.UNSTORABLE
    assert outcomes == [created, created, refused, created]


@pytest.mark.parametrize("size", [0, 31, 33, 10_000])
def test_a_hash_is_a_hash(ledger: LedgerUnderTest, size: int) -> None:
    """Of whatever length it is, its call id could be computed."""
    wrong = b"h" * size
    new = replace(a_submission(), input_hash=wrong, call_id=call_id("acme", wrong))

    (answer,) = ledger.submit(new)

    assert answer.outcome is SubmitOutcome.UNSTORABLE
    assert ledger.count_calls() == 0


def test_an_organisation_has_a_name(ledger: LedgerUnderTest) -> None:
    """Its call id is computed from it."""
    for length, outcome in ((128, SubmitOutcome.CREATED), (129, SubmitOutcome.UNSTORABLE)):
        (answer,) = ledger.submit(a_submission(org_id="o" * length))
        assert answer.outcome is outcome


def test_a_request_has_an_end(ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte more than the largest; the next call is taken."""
    larger = a_submission("larger", request=b"x" * (bounds.REQUEST_MAX_BYTES + 1))

    outcomes = [a.outcome for a in ledger.submit(larger, a_submission("next"))]

    assert outcomes == [SubmitOutcome.UNSTORABLE, SubmitOutcome.CREATED]


@pytest.mark.parametrize("column", CLAIMED)
def test_a_claim_is_taken_up_to_the_bound(ledger: LedgerUnderTest, column: str) -> None:
    """A worker's own columns."""
    largest, larger = CLAIMED[column]
    commands = [
        a_reserve(ledger.queued(content), **{column: value})  # type: ignore[arg-type]
        for content, value in (("a", largest), ("b", larger))
    ]

    taken, refused = ledger.reserve(*commands)

    assert isinstance(taken, Reserved)
    assert isinstance(refused, Unstorable)


@pytest.mark.parametrize("column", RECORDED)
def test_an_answer_is_taken_up_to_the_bound(ledger: LedgerUnderTest, column: str) -> None:
    """What a provider says of itself."""
    answers = [
        an_answer(ledger.running(content), **{column: value})
        for content, value in zip("ab", RECORDED[column], strict=True)
    ]

    assert ledger.record(*answers) == [RecordOutcome.RECORDED, RecordOutcome.UNSTORABLE]


@pytest.mark.parametrize("column", SETTLED)
def test_a_settlement_is_taken_up_to_the_bound(ledger: LedgerUnderTest, column: str) -> None:
    """The neighbour is settled."""
    build = a_success if column == "service_tier" else a_failure
    settles = [
        build(ledger.answered(content), **{column: value})  # type: ignore[arg-type]
        for content, value in zip("ab", SETTLED[column], strict=True)
    ]

    taken, refused = ledger.ledger.settle(settles)

    assert not isinstance(taken, Unstorable)
    assert isinstance(refused, Unstorable)


def test_a_refusal_is_taken_up_to_the_bound(ledger: LedgerUnderTest) -> None:
    """A worker's reason to refuse a call."""
    texts = ('"' + "x" * (bounds.ERROR_MAX_BYTES - 2 + more) + '"' for more in (0, 1))
    commands = [Reject(ledger.queued(text[-9:] + str(len(text))), text) for text in texts]

    taken, refused = ledger.reserve(*commands)

    assert isinstance(taken, Refused)
    assert isinstance(refused, Unstorable)


def test_a_reason_to_end_a_call_has_an_end(ledger: LedgerUnderTest) -> None:
    """The caller hears at once that it is too long, and nothing is ended."""
    key = ledger.queued()

    with pytest.raises(InvalidRequest, match="at most 16384 bytes"):
        ledger.operations.end([key], code=EndReason.CANCELLED, message="x" * bounds.ERROR_MAX_BYTES)

    assert ledger.state(key) is CallState.QUEUED


def test_many_calls_are_read_and_ended_by_more_than_one_statement(ledger: LedgerUnderTest) -> None:
    """A statement takes a thousand; a caller who asks for more need not know."""
    keys = [a.key for a in ledger.ledger.submit([a_submission(str(n)) for n in range(1_050)])]

    views = list(ledger.ledger.read(keys))
    ended = ledger.operations.end(keys, code=EndReason.CANCELLED, message="by a test")

    assert [view.key for view in views if view] == keys
    assert sorted(ended) == sorted(keys)
