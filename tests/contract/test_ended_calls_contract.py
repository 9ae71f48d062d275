"""What operators see of calls without an answer: groups, the calls of a group, bounds of what is looked at."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from callgate.domain.calls import CallKey, CallState
from callgate.domain.dead_letters import Badge, EndGroup
from callgate.domain.provider import Failure
from callgate.domain.reports import By, CallFilter, EndReason, UnprocessableMessage
from tests.support.ledger_under_test import (
    DAY_S,
    LINK,
    ORG,
    RATE_LIMITED,
    LedgerUnderTest,
    a_failure,
    a_submission,
    an_answer,
)

DEAD = CallFilter(state=CallState.DEAD)
REFUSED = CallFilter(state=CallState.REJECTED)
OTHER = replace(RATE_LIMITED, code="provider_error", status=500)
FINGERPRINT = RATE_LIMITED.fingerprint("openai")
OTHER_FINGERPRINT = OTHER.fingerprint("openai")


def died(
    ledger: LedgerUnderTest, content: str, failure: Failure = RATE_LIMITED, **changes: object
) -> CallKey:
    """A call that died of a failure, after its attempt had posted 7."""
    ref = ledger.answered(content, **changes)
    fingerprint = failure.fingerprint("openai")
    settle = a_failure(
        ref, error=failure.to_json(), error_fingerprint=fingerprint, posted_nano_usd=7
    )
    assert ledger.settle(settle)[0].is_applied
    return ref.key


def again(ledger: LedgerUnderTest, content: str) -> CallKey:
    """The next generation of a call, queued."""
    (answer,) = ledger.submit(a_submission(content, force=True))
    return answer.key


def groups(ledger: LedgerUnderTest, which: CallFilter = DEAD, **bounds: int) -> list[EndGroup]:
    """The groups."""
    return ledger.ended.end_groups(which, **bounds)


def keys(ledger: LedgerUnderTest, which: CallFilter, limit: int = 10) -> list[CallKey]:
    """The calls of a group."""
    return [call.key for call in ledger.ended.ended_calls(which, limit=limit)]


def test_dead_letters_are_grouped_by_what_went_wrong(ledger: LedgerUnderTest) -> None:
    """With how many, of whom, what they cost, and an example; the group that was added to last comes first."""
    ledger.set_budget(1_000, org_id="zeta")
    died(ledger, "one")
    died(ledger, "two", org_id="zeta")
    ledger.age(60)
    died(ledger, "three", OTHER)

    newest, older = groups(ledger)

    assert (newest.name, older.name) == (OTHER_FINGERPRINT, FINGERPRINT)
    assert (newest.count, newest.orgs, newest.posted_nano_usd) == (1, 1, 7)
    assert (older.count, older.orgs, older.posted_nano_usd) == (2, 2, 14)
    assert older.reason == "rate_limited"
    assert older.sample_error == RATE_LIMITED.to_json()
    assert (older.providers, older.models) == (("openai",), ("gpt-4o-mini",))
    assert (older.is_more, older.uncounted, older.again) == (False, 0, 0)
    assert newest.last_at - older.last_at >= timedelta(seconds=59)


def test_refusals_are_grouped_by_their_reason(ledger: LedgerUnderTest) -> None:
    """They cost nothing; a dead call is none of them."""
    died(ledger, "dead")
    for content in ("one", "two"):
        ledger.rejected(content)

    (group,) = groups(ledger, REFUSED)

    assert (group.state, group.name, group.reason) == (CallState.REJECTED, "cancelled", "cancelled")
    assert (group.count, group.posted_nano_usd, group.uncounted) == (2, 0, 0)


def test_a_call_with_a_later_generation_is_in_no_group(ledger: LedgerUnderTest) -> None:
    """But when something was first seen is known of it; a letter that died alike again counts as such."""
    died(ledger, "one")
    ledger.age(2 * DAY_S)
    key = again(ledger, "one")
    assert groups(ledger) == []

    ref = ledger.claim(key)
    ledger.record(an_answer(ref))
    ledger.settle(a_failure(ref))

    (group,) = groups(ledger)
    assert (group.count, group.again) == (1, 1)
    assert ledger.now() - group.first_at >= timedelta(days=2)
    assert group.badge(ledger.now()) is Badge.AGAIN


def test_what_was_discarded_is_not_new_when_it_comes_back(ledger: LedgerUnderTest) -> None:
    """A group is new once."""
    discarded = died(ledger, "one")
    assert groups(ledger)[0].badge(ledger.now()) is Badge.NEW
    ledger.operations.end([discarded], code=EndReason.DISCARDED, message="a test")
    assert groups(ledger) == []
    ledger.age(2 * DAY_S)

    died(ledger, "two")

    (group,) = groups(ledger)
    assert group.badge(ledger.now()) is Badge.RECURRING
    ledger.age(2 * DAY_S)
    assert groups(ledger)[0].badge(ledger.now()) is Badge.QUIET


def test_groups_can_be_narrowed(ledger: LedgerUnderTest) -> None:
    """To an organisation and a time; the numbers are those of what is left."""
    ledger.set_budget(1_000, org_id="zeta")
    died(ledger, "old")
    ledger.age(3_600)
    died(ledger, "new", org_id="zeta")
    now = ledger.now()

    def counts(**narrowed: object) -> list[tuple[int, int]]:
        found = groups(ledger, replace(DEAD, **narrowed))  # type: ignore[arg-type]
        return [(group.count, group.orgs) for group in found]

    assert counts() == [(2, 2)]
    assert counts(org_id=ORG) == counts(org_id="zeta") == [(1, 1)]
    assert counts(org_id="nobody") == []
    assert counts(since=now - timedelta(seconds=60)) == [(1, 1)]
    assert counts(until=now - timedelta(seconds=60)) == [(1, 1)]
    assert counts(org_id="zeta", until=now - timedelta(seconds=60)) == []


def test_one_group_can_be_asked_for(ledger: LedgerUnderTest) -> None:
    """By its name, of all organisations or of one; it has all that may be looked at for itself."""
    died(ledger, "one")
    died(ledger, "two", OTHER)
    ledger.rejected("three")

    named = replace(DEAD, error_fingerprint=FINGERPRINT)
    assert [group.name for group in groups(ledger, named)] == [FINGERPRINT]
    assert [group.name for group in groups(ledger, replace(named, org_id=ORG))] == [FINGERPRINT]
    assert groups(ledger, replace(DEAD, error_fingerprint="feed")) == []
    assert [g.name for g in groups(ledger, replace(REFUSED, end_reason="cancelled"))] == [
        "cancelled"
    ]
    assert groups(ledger, replace(REFUSED, end_reason="too_late")) == []


def test_a_group_says_what_was_not_looked_at(ledger: LedgerUnderTest) -> None:
    """So many of each group are counted, and fewer of them summed up, the newest ones."""
    for number in range(12):
        died(ledger, f"{number}")
        ledger.age(1)

    (group,) = groups(ledger, paid_max=10)
    assert (group.count, group.posted_nano_usd, group.uncounted) == (12, 70, 2)
    (group,) = groups(ledger, replace(DEAD, org_id=ORG), looked_max=5)
    assert (group.count, group.is_more) == (5, True)
    assert len(groups(ledger, groups_max=1)) == 1


def test_the_calls_of_a_group_are_listed_page_by_page(ledger: LedgerUnderTest) -> None:
    """Newest first, each once, whatever is added meanwhile; also those submitted in one moment."""
    made = [died(ledger, f"{number}") for number in range(3)]
    ledger.age(60)
    made += [died(ledger, "newest")]
    which = replace(DEAD, error_fingerprint=FINGERPRINT)

    first = ledger.ended.ended_calls(which, limit=2)
    died(ledger, "later")
    rest = ledger.ended.ended_calls(which, after=first[-1].place, limit=10)
    ours = ledger.ended.ended_calls(replace(which, org_id=ORG), after=first[-1].place, limit=10)

    assert first[0].key == made[-1]
    assert {call.key for call in first + rest} == set(made)
    assert len(first + rest) == len(made)
    assert ours == rest


def test_a_line_says_what_a_call_cost(ledger: LedgerUnderTest) -> None:
    """And when it ended, and whether it was tried before."""
    died(ledger, "one", call_type="triage")
    before = ledger.now()
    ledger.age(60)

    (call,) = ledger.ended.ended_calls(replace(DEAD, error_fingerprint=FINGERPRINT), limit=10)

    assert (call.org_id, call.call_type, call.provider) == (ORG, "triage", "openai")
    assert (call.attempts, call.posted_nano_usd, call.unknown_attempts) == (1, 7, 0)
    assert call.ended_at is not None
    assert ledger.now() - call.ended_at >= timedelta(seconds=59)
    assert call.ended_at <= before
    assert not call.is_again


@pytest.mark.parametrize("org_id", [None, ORG])
def test_refused_calls_are_listed_by_reason(ledger: LedgerUnderTest, org_id: str | None) -> None:
    """A reason that nothing was refused for has none."""
    key = ledger.rejected("one")
    which = replace(REFUSED, org_id=org_id)

    assert keys(ledger, replace(which, end_reason="cancelled")) == [key]
    assert keys(ledger, replace(which, end_reason="too_late")) == []
    assert keys(ledger, replace(which, state=CallState.DEAD, error_fingerprint="feed")) == []


def test_unprocessable_messages_are_listed_without_their_content(ledger: LedgerUnderTest) -> None:
    """Newest first, page by page."""
    for number in range(3):
        ledger.operations.keep_unprocessable(
            UnprocessableMessage("callgate.call", f"reason {number}", b"x" * number)
        )

    first = ledger.ended.unprocessable_lines(limit=2)
    rest = ledger.ended.unprocessable_lines(before_id=first[-1].message_id, limit=2)

    assert [line.reason for line in first + rest] == ["reason 2", "reason 1", "reason 0"]
    assert [line.size_bytes for line in first + rest] == [2, 1, 0]


def test_dead_letters_are_discarded_for_a_reason(ledger: LedgerUnderTest) -> None:
    """Those that are still dead; each keeps who and why, and the action log has one row for all."""
    keys = [died(ledger, content) for content in ("one", "two")]
    alive = ledger.queued("alive")
    by = By("ann", "the prompt was wrong")

    discarded = ledger.ended.discard([*keys, alive, CallKey(keys[0].call_id, 9)], by=by)
    again = ledger.ended.discard(keys, by=by)

    assert (sorted(discarded, key=str), again) == (sorted(keys, key=str), [])
    assert [ledger.state(key) for key in (*keys, alive)] == ["rejected", "rejected", "queued"]
    error = json.loads(ledger.view(keys[0]).error or "")
    assert error == {"code": "discarded", "message": "the prompt was wrong (by ann)"}
    (action,) = [a for a in ledger.operations.actions(limit=9) if a.action != "breaker.close"]
    assert (action.by, action.action) == (by, "dead_letters.discard")
    assert (action.org_id, action.subject, action.detail["calls"]) == (ORG, "2 dead letters", 2)


def test_a_discarded_call_has_its_links_delivered(ledger: LedgerUnderTest) -> None:
    """Its submitter hears of the end if it has not yet."""
    key = died(ledger, "one", link=LINK)
    for delivery in ledger.links(keys=[key]):
        ledger.deliver(delivery.submission_id)
    ledger.submit(a_submission("one", link=LINK))

    ledger.ended.discard([key], by=By("ann", "old"))

    assert [delivery.state for delivery in ledger.links(keys=[key])] == [CallState.REJECTED]


def test_the_action_of_one_call_names_it(ledger: LedgerUnderTest) -> None:
    """So that the action log leads to it."""
    key = died(ledger, "one")
    ledger.ended.discard([key], by=By("ann", "old"))

    assert key.task_id in {action.subject for action in ledger.operations.actions(limit=9)}
