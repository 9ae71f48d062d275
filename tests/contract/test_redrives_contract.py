"""Redrives: what is frozen, how one is started, and that each call is released once."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.errors import (
    CallNotFound,
    CountDiffers,
    RedriveNotFound,
    RedriveStateDiffers,
    SecondPaymentNotAllowed,
    TooManyRedrives,
)
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.pauses import PauseKey
from callgate.domain.redrives import (
    OPEN_REDRIVES_MAX,
    NewRedrive,
    PricedCall,
    RedriveOutcome,
    RedriveState,
    StartRedrive,
    UnknownBills,
)
from callgate.domain.reports import EndReason
from tests.contract.redrive_steps import (
    ANN,
    DEAD,
    LEASE_S,
    REFUSED,
    WORST,
    dead,
    get,
    outcomes,
    planned,
    prepared,
    redrives_of,
    released,
    started,
    take,
)
from tests.support.ledger_under_test import (
    LINK,
    RATE_LIMITED,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)

PENDING, RELEASED = RedriveOutcome.PENDING, RedriveOutcome.RELEASED
SKIPPED, REFUSED_NOW = RedriveOutcome.SKIPPED, RedriveOutcome.REFUSED


# The plan.


def test_a_plan_freezes_the_newest_generations_oldest_first(ledger: LedgerUnderTest) -> None:
    keys = dead(ledger, "a", "b")
    ledger.succeeded("good")
    (again,) = ledger.submit(a_submission("a", force=True))

    seen = planned(ledger)
    later = dead(ledger, "c")

    calls = redrives_of(ledger).calls_of(seen.redrive_id, limit=10)
    assert [call.key for call in calls] == list(keys)[1:]
    assert again.key not in [call.key for call in calls]
    assert set(later).isdisjoint(call.key for call in calls)
    assert (seen.state, seen.calls, seen.worst_case_nano_usd) == (RedriveState.PLANNED, 1, WORST)


def test_a_plan_chooses_by_every_filter(ledger: LedgerUnderTest) -> None:
    (key,) = dead(ledger, "a", call_type="chat")
    dead(ledger, "b")
    now = ledger.now()
    chat = replace(DEAD, call_type="chat")
    for which in (
        chat,
        replace(DEAD, call_ids=(key.call_id,)),
        replace(chat, org_id="acme", provider="openai", model="gpt-4o-mini"),
        replace(chat, end_reason="rate_limited", until=now),
        replace(chat, error_fingerprint=RATE_LIMITED.fingerprint("openai")),
    ):
        seen = planned(ledger, which)
        calls = redrives_of(ledger).calls_of(seen.redrive_id, limit=10)
        assert [call.key for call in calls] == [key], which
    for which in (
        replace(DEAD, org_id="nova"),
        replace(DEAD, model="x"),
        replace(DEAD, since=now),
        replace(DEAD, error_fingerprint="x"),
    ):
        with pytest.raises(CallNotFound):
            planned(ledger, which)


def test_the_newest_calls_are_chosen_if_there_are_too_many(ledger: LedgerUnderTest) -> None:
    keys = list(dead(ledger, "a", "b", "c"))

    seen = planned(ledger, calls_max=2)

    calls = redrives_of(ledger).calls_of(seen.redrive_id, limit=10)
    assert [call.key for call in calls] == keys[1:]


def test_refused_calls_are_chosen_but_not_what_a_person_ended(ledger: LedgerUnderTest) -> None:
    ledger.set_budget(0)
    key = ledger.queued("poor")
    ledger.reserve(a_reserve(key))
    cancelled = ledger.rejected("cancelled")
    assert ledger.state(key) is CallState.REJECTED

    seen = planned(ledger, REFUSED)
    named = planned(ledger, replace(REFUSED, call_ids=(cancelled.call_id,)))
    by_reason = planned(ledger, replace(REFUSED, end_reason="cancelled"))

    port = redrives_of(ledger)
    assert [c.key for c in port.calls_of(seen.redrive_id, limit=9)] == [key]
    assert [c.key for c in port.calls_of(named.redrive_id, limit=9)] == [cancelled]
    assert [c.key for c in port.calls_of(by_reason.redrive_id, limit=9)] == [cancelled]


def test_the_same_id_again_is_the_same_redrive(ledger: LedgerUnderTest) -> None:
    """A form that is sent twice plans once."""
    dead(ledger, "a")
    new = NewRedrive(uuid4(), DEAD, ANN)
    first = redrives_of(ledger).plan(new)
    dead(ledger, "b")

    assert redrives_of(ledger).plan(new).calls == first.calls == 1
    assert len(redrives_of(ledger).newest(limit=10)) == 1


def test_so_many_redrives_may_be_open(ledger: LedgerUnderTest) -> None:
    dead(ledger, "a")
    port = redrives_of(ledger)
    ids = [port.plan(NewRedrive(uuid4(), DEAD, ANN)).redrive_id for _ in range(OPEN_REDRIVES_MAX)]

    with pytest.raises(TooManyRedrives):
        port.plan(NewRedrive(uuid4(), DEAD, ANN))
    port.abort(ids[0], ANN)

    assert port.plan(NewRedrive(uuid4(), DEAD, ANN)).state is RedriveState.PLANNING


def test_what_a_gate_refuses_is_said_in_the_plan(ledger: LedgerUnderTest) -> None:
    dead(ledger, "a", "b")

    seen = planned(ledger, prices={1: PricedCall(1, refusal="unpriced_model")})

    assert outcomes(ledger, seen.redrive_id) == [(REFUSED_NOW, "unpriced_model"), (PENDING, None)]
    assert (seen.counts.refused, seen.counts.pending) == (1, 1)
    (org,) = redrives_of(ledger).orgs_of(seen.redrive_id)
    assert (org.org_id, org.calls, org.pending, org.worst_case_nano_usd) == ("acme", 2, 1, WORST)


def test_a_plan_that_nobody_starts_ends(ledger: LedgerUnderTest) -> None:
    dead(ledger, "a")
    seen = planned(ledger)

    ledger.age(86_400)
    assert take(ledger) is None

    assert get(ledger, seen.redrive_id).state is RedriveState.EXPIRED
    assert get(ledger, seen.redrive_id).ended_at is not None
    assert outcomes(ledger, seen.redrive_id) == [(RedriveOutcome.LEFT, "expired")]


# The start.


def test_another_count_than_expected_starts_nothing(ledger: LedgerUnderTest) -> None:
    dead(ledger, "a", "b")
    seen = planned(ledger)

    with pytest.raises(CountDiffers, match="you expect 3, and 2 match"):
        redrives_of(ledger).start(StartRedrive(seen.redrive_id, 3, ANN))

    assert get(ledger, seen.redrive_id).state is RedriveState.PLANNED
    assert take(ledger) is None
    assert [a.action for a in ledger.operations.actions(limit=9)][:1] == ["redrive.plan"]


def test_it_is_started_once_and_logged(ledger: LedgerUnderTest) -> None:
    """Two operators at once, or one who clicks twice."""
    dead(ledger, "a")
    seen = started(ledger)

    with pytest.raises(RedriveStateDiffers, match="is running, not planned"):
        redrives_of(ledger).start(StartRedrive(seen.redrive_id, 1, ANN))
    with pytest.raises(RedriveNotFound):
        redrives_of(ledger).start(StartRedrive(uuid4(), 1, ANN))

    (action,) = [a for a in ledger.operations.actions(limit=9) if a.action == "redrive.start"]
    assert (action.by, action.subject) == (ANN, f"redrive {seen.redrive_id}")
    assert action.detail == {
        "calls": 1, "worst_case_nano_usd": WORST, "unknown_bills": "refuse",
    }  # fmt: skip
    assert (seen.by, seen.state) == (ANN, RedriveState.RUNNING)


def unknown(ledger: LedgerUnderTest, content: str) -> CallKey:
    """A dead call whose bill is unknown."""
    ref = ledger.running(content)
    ledger.settle(a_loss(ref, next_state=CallState.DEAD, due_in_s=None))
    ledger.age(1)
    return ref.key


def test_a_second_payment_needs_consent(ledger: LedgerUnderTest) -> None:
    contents = {unknown(ledger, "lost"): "lost", **dead(ledger, "a")}
    seen = planned(ledger)
    start = StartRedrive(seen.redrive_id, 2, ANN)
    assert (seen.unknown, seen.counts.pending) == (1, 2)

    with pytest.raises(SecondPaymentNotAllowed, match="the bills of 1 calls are unknown"):
        redrives_of(ledger).start(start)
    redrives_of(ledger).start(replace(start, unknown_bills=UnknownBills.PAY_AGAIN))

    assert len(released(ledger, contents)) == 2


def test_calls_with_unknown_bills_are_left_out(ledger: LedgerUnderTest) -> None:
    contents = {unknown(ledger, "lost"): "lost", **dead(ledger, "a")}
    seen = planned(ledger)
    start = StartRedrive(seen.redrive_id, 2, ANN, unknown_bills=UnknownBills.SKIP)

    with pytest.raises(CountDiffers, match="you expect 2, and 1 match"):
        redrives_of(ledger).start(start)
    redrives_of(ledger).start(replace(start, expected_calls=1))

    assert len(released(ledger, contents)) == 1
    assert outcomes(ledger, seen.redrive_id) == [(SKIPPED, "unknown_bill"), (RELEASED, None)]


def test_a_redrive_of_nothing_that_can_be_released_is_done_at_once(ledger: LedgerUnderTest) -> None:
    dead(ledger, "a")
    seen = planned(ledger, prices={1: PricedCall(1, refusal="purged")})

    done = redrives_of(ledger).start(StartRedrive(seen.redrive_id, 0, ANN))

    assert (done.state, done.ended_at is not None) == (RedriveState.DONE, True)


# The release.


def test_each_call_is_released_once_with_its_links(ledger: LedgerUnderTest) -> None:
    ref = ledger.answered("a", link=LINK)
    ledger.settle(a_failure(ref))
    seen = started(ledger)
    step = take(ledger)
    assert step is not None
    calls = prepared(ledger, step, {ref.key: "a"})

    (answer,) = redrives_of(ledger).release(step, calls)
    again = redrives_of(ledger).release(step, calls)

    assert answer.outcome is SubmitOutcome.CREATED
    assert answer.key == CallKey(ref.key.call_id, 2)
    assert again == []
    assert ledger.count_calls() == 2
    (call,) = redrives_of(ledger).calls_of(seen.redrive_id, limit=9)
    assert (call.outcome, call.next_key) == (RELEASED, answer.key)
    ledger.settle(a_success(answered(ledger, answer.key)))
    assert [link.key for link in ledger.links(keys=[answer.key])] == [answer.key]


def test_an_old_lease_releases_nothing(ledger: LedgerUnderTest) -> None:
    """Its worker was paused for longer than its lease, and another one has the redrive."""
    contents = dead(ledger, "a", "b")
    started(ledger)
    old = take(ledger)
    assert old is not None
    assert take(ledger) is None
    ledger.age(LEASE_S + 1)

    assert len(released(ledger, contents)) == 2
    assert redrives_of(ledger).release(old, prepared(ledger, old, contents)) == []
    assert ledger.count_calls() == 4


def test_a_newer_generation_is_skipped_and_said(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a", "b", "c")
    a, b, _ = contents
    seen = started(ledger)
    step = take(ledger)
    assert step is not None
    ledger.submit(a_submission("a", force=True))
    ledger.operations.end([b], code=EndReason.DISCARDED, message="no need")

    answers = redrives_of(ledger).release(step, prepared(ledger, step, contents))

    assert [answer.key.call_id for answer in answers] == [list(contents)[2].call_id]
    assert outcomes(ledger, seen.redrive_id) == [
        (SKIPPED, "newer_generation"), (SKIPPED, "changed"), (RELEASED, None),
    ]  # fmt: skip
    assert a.generation == 1


def test_a_locked_call_waits_and_its_neighbours_do_not(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a", "b")
    seen = started(ledger)

    with ledger.holding(next(iter(contents))):
        assert len(released(ledger, contents)) == 1
    assert outcomes(ledger, seen.redrive_id)[0] == (PENDING, None)
    ledger.age(5)

    assert len(released(ledger, contents)) == 1


def test_a_frozen_organisation_is_refused(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a")
    seen = started(ledger)
    ledger.operations.pause(PauseKey(org_id="acme", is_freeze=True), by=ANN)

    assert released(ledger, contents) == []

    assert outcomes(ledger, seen.redrive_id) == [(REFUSED_NOW, "organisation_frozen")]
    assert get(ledger, seen.redrive_id).state is RedriveState.DONE


def test_what_is_refused_at_release_is_said(ledger: LedgerUnderTest) -> None:
    """A price or a gate may have changed since the plan."""
    contents = dead(ledger, "a", "b")
    seen = started(ledger)
    step = take(ledger)
    assert step is not None
    _, second = prepared(ledger, step, contents)
    other = a_submission("another call")

    redrives_of(ledger).release(
        step, [PricedCall(1, refusal="input_too_large"), replace(second, submission=other)]
    )

    assert outcomes(ledger, seen.redrive_id) == [
        (REFUSED_NOW, "input_too_large"), (REFUSED_NOW, "identity_differs"),
    ]  # fmt: skip


def test_a_row_that_cannot_be_stored_is_refused_alone(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a", "b")
    seen = started(ledger)
    step = take(ledger)
    assert step is not None
    first, second = prepared(ledger, step, contents)
    assert first.submission is not None
    broken = replace(first, submission=replace(first.submission, input_token_bound=2**30))

    answers = redrives_of(ledger).release(step, [broken, second])

    assert len(answers) == 1
    assert outcomes(ledger, seen.redrive_id) == [(REFUSED_NOW, "row_refused"), (RELEASED, None)]


def answered(ledger: LedgerUnderTest, key: CallKey) -> AttemptRef:
    """Claim a call, and record a reply to it."""
    ref = ledger.claim(key)
    ledger.record(an_answer(ref))
    return ref
