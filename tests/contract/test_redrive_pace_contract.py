"""Redrives: rate, cap on money, what stops one, how it goes on, and what became of its calls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.errors import RedriveNotFound, RedriveStateDiffers
from callgate.domain.ledger import Submitted
from callgate.domain.limits import Declaration
from callgate.domain.redrives import (
    OPEN_CALLS_MAX,
    STEP_CALLS_MAX,
    PauseCause,
    RedriveCounts,
    RedriveOutcome,
    RedriveState,
    RedriveTerms,
)
from callgate.domain.reports import CallFilter, EndReason
from tests.contract.redrive_steps import (
    ANN,
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
    LedgerUnderTest,
    a_failure,
    a_submission,
    a_success,
    an_answer,
)

LEFT = RedriveOutcome.LEFT
FEW_FAILURES = RedriveTerms(stop_share=0.5, stop_min=2)


def answered(ledger: LedgerUnderTest, answer: Submitted) -> AttemptRef:
    """Claim a released call, and record a reply to it."""
    ref = ledger.claim(answer.key)
    ledger.record(an_answer(ref))
    return ref


def looked(ledger: LedgerUnderTest) -> None:
    """Let a worker look at the redrive again."""
    ledger.age(1)
    take(ledger)


def test_what_became_of_each_call_is_kept(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a", "b", "c")
    seen = started(ledger)
    good, bad, cancelled = released(ledger, contents)
    ledger.settle(a_success(answered(ledger, good), 60))
    ledger.settle(a_failure(answered(ledger, bad)))
    assert get(ledger, seen.redrive_id).counts == RedriveCounts(released=3)
    assert get(ledger, seen.redrive_id).open_nano_usd == 3 * WORST
    ledger.operations.end([cancelled.key], code=EndReason.CANCELLED, message="no need")

    looked(ledger)

    assert outcomes(ledger, seen.redrive_id) == [
        (RedriveOutcome.SUCCEEDED, None),
        (RedriveOutcome.FAILED, "rate_limited"),
        (RedriveOutcome.REJECTED, "cancelled"),
    ]
    done = get(ledger, seen.redrive_id)
    assert done.counts == RedriveCounts(succeeded=1, failed=1, rejected=1)
    assert (done.state, done.posted_nano_usd, done.open_nano_usd) == (RedriveState.DONE, 60, 0)
    assert done.ended_at is not None
    (org,) = redrives_of(ledger).orgs_of(seen.redrive_id)
    assert (org.posted_nano_usd, org.pending, org.worst_case_nano_usd) == (60, 0, 0)


def test_a_rate_releases_one_at_a_time(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, *"abc")
    seen = started(ledger, terms=RedriveTerms(rate_per_min=6))

    assert len(released(ledger, contents)) == 1
    assert take(ledger) is None
    ledger.age(10.001)
    assert len(released(ledger, contents)) == 1
    assert take(ledger) is None

    assert get(ledger, seen.redrive_id).counts.released == 2


def test_what_no_worker_released_is_caught_up_only_in_part(ledger: LedgerUnderTest) -> None:
    """Five seconds of it."""
    contents = dead(ledger, *"abcdefghij")
    started(ledger, terms=RedriveTerms(rate_per_min=60))

    assert len(released(ledger, contents)) == 1
    ledger.age(100)

    assert len(released(ledger, contents)) == 6


def test_a_bounded_number_is_open_at_a_time(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, *(f"call {n}" for n in range(OPEN_CALLS_MAX + 1)))
    started(ledger)

    numbers = [len(released(ledger, contents)) for _ in range(3)]
    looked(ledger)

    assert numbers == [STEP_CALLS_MAX, OPEN_CALLS_MAX - STEP_CALLS_MAX, 0]


def test_the_cap_counts_what_open_calls_may_cost(ledger: LedgerUnderTest) -> None:
    """An exact fit passes. What ended costs what it has posted, and leaves room for others."""
    contents = dead(ledger, *"abcd")
    seen = started(ledger, terms=RedriveTerms(cap_nano_usd=2 * WORST + 60))
    first, second = released(ledger, contents)
    assert get(ledger, seen.redrive_id).committed_nano_usd == 2 * WORST

    ledger.age(2)
    assert released(ledger, contents) == []
    ledger.settle(a_success(answered(ledger, first), 60))
    ledger.age(2)
    (third,) = released(ledger, contents)
    assert get(ledger, seen.redrive_id).committed_nano_usd == 2 * WORST + 60
    for answer in (second, third):
        ledger.settle(a_success(answered(ledger, answer), 90))
    ledger.age(2)
    released(ledger, contents)

    stopped = get(ledger, seen.redrive_id)
    assert (stopped.state, stopped.cause) == (RedriveState.PAUSED, PauseCause.CAP)
    assert stopped.counts == RedriveCounts(pending=1, succeeded=3)
    assert stopped.posted_nano_usd == 240
    redrives_of(ledger).resume(seen.redrive_id, RedriveTerms(cap_nano_usd=240 + WORST), ANN)
    assert len(released(ledger, contents)) == 1


def test_it_stops_if_too_many_fail_again(ledger: LedgerUnderTest) -> None:
    """And failures of before do not count once it was resumed."""
    contents = dead(ledger, *"abcdef")
    seen = started(ledger, terms=replace(FEW_FAILURES, rate_per_min=6))
    ledger.settle(a_failure(answered(ledger, *released(ledger, contents))))
    ledger.age(10.001)
    ledger.settle(a_success(answered(ledger, *released(ledger, contents))))
    ledger.age(10.001)

    assert take(ledger) is None
    paused = get(ledger, seen.redrive_id)
    assert (paused.state, paused.cause) == (RedriveState.PAUSED, PauseCause.FAILURES)
    assert paused.counts == RedriveCounts(pending=4, succeeded=1, failed=1)

    redrives_of(ledger).resume(seen.redrive_id, replace(FEW_FAILURES, rate_per_min=6), ANN)
    ledger.settle(a_failure(answered(ledger, *released(ledger, contents)[:1])))
    ledger.age(10.001)
    assert len(released(ledger, contents)) == 1
    assert get(ledger, seen.redrive_id).state is RedriveState.RUNNING


def test_a_pause_releases_nothing_and_follows_what_is_released(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a", "b")
    port = redrives_of(ledger)
    seen = started(ledger, terms=RedriveTerms(rate_per_min=1))
    (answer,) = released(ledger, contents)

    paused = port.pause(seen.redrive_id, ANN)
    assert (paused.state, paused.cause) == (RedriveState.PAUSED, PauseCause.OPERATOR)
    with pytest.raises(RedriveStateDiffers, match="is paused, not running"):
        port.pause(seen.redrive_id, ANN)
    ledger.settle(a_success(answered(ledger, answer)))
    ledger.age(100)
    assert take(ledger) is None
    assert get(ledger, seen.redrive_id).counts == RedriveCounts(pending=1, succeeded=1)

    resumed = port.resume(seen.redrive_id, RedriveTerms(), ANN)
    assert (resumed.state, resumed.cause) == (RedriveState.RUNNING, None)
    assert len(released(ledger, contents)) == 1
    logged = [a.action.removeprefix("redrive.") for a in ledger.operations.actions(limit=4)]
    assert logged == ["resume", "pause", "start", "plan"]


def test_a_step_that_was_taken_before_a_pause_releases_nothing(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a")
    seen = started(ledger)
    step = take(ledger)
    assert step is not None
    redrives_of(ledger).pause(seen.redrive_id, ANN)

    assert redrives_of(ledger).release(step, prepared(ledger, step, contents)) == []
    assert ledger.count_calls() == 1


def test_an_aborted_redrive_ends_with_its_calls(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a", "b")
    port = redrives_of(ledger)
    seen = started(ledger, terms=RedriveTerms(rate_per_min=1))
    (answer,) = released(ledger, contents)

    aborted = port.abort(seen.redrive_id, ANN)
    assert (aborted.state, aborted.ended_at) == (RedriveState.ABORTED, None)
    assert outcomes(ledger, seen.redrive_id)[1] == (LEFT, "aborted")
    ledger.settle(a_success(answered(ledger, answer)))
    looked(ledger)

    assert get(ledger, seen.redrive_id).counts == RedriveCounts(succeeded=1, left=1)
    assert get(ledger, seen.redrive_id).ended_at is not None
    with pytest.raises(RedriveStateDiffers):
        port.abort(seen.redrive_id, ANN)
    for change in (port.pause, port.abort):
        with pytest.raises(RedriveNotFound):
            change(a_submission().submission_id, ANN)


def test_a_call_of_a_busy_organisation_waits(ledger: LedgerUnderTest) -> None:
    contents = dead(ledger, "a", "b")
    ledger.flow.publish("w", Declaration(open_calls_max=1))
    seen = started(ledger)

    assert len(released(ledger, contents)) == 1
    assert get(ledger, seen.redrive_id).counts == RedriveCounts(pending=1, released=1)
    ledger.flow.publish("w", Declaration())
    ledger.age(20)

    assert len(released(ledger, contents)) == 1


def test_a_redrive_that_takes_too_long_ends(ledger: LedgerUnderTest) -> None:
    dead(ledger, "a")
    seen = started(ledger)
    redrives_of(ledger).pause(seen.redrive_id, ANN)

    ledger.age(31 * 86_400)
    assert take(ledger) is None

    assert get(ledger, seen.redrive_id).state is RedriveState.ABORTED
    assert outcomes(ledger, seen.redrive_id) == [(LEFT, "expired")]


def test_old_redrives_are_deleted(ledger: LedgerUnderTest) -> None:
    dead(ledger, "a")
    port = redrives_of(ledger)
    ended, open_one = planned(ledger), planned(ledger)
    port.abort(ended.redrive_id, ANN)
    ledger.age(100)

    assert port.forget(age_s=200, limit=9) == 0
    assert port.forget(age_s=100, limit=9) == 1

    assert [r.redrive_id for r in port.newest(limit=9)] == [open_one.redrive_id]
    assert port.calls_of(ended.redrive_id, limit=9) == []
    assert ledger.operations.actions(limit=1)[0].action == "redrive.abort"


def test_several_redrives_take_turns(ledger: LedgerUnderTest) -> None:
    """One with nothing to do does not hold up the others; and what both chose is released once."""
    contents = dead(ledger, "a", "b")
    slow = started(ledger, terms=RedriveTerms(rate_per_min=1))
    assert len(released(ledger, contents)) == 1
    second = started(ledger)
    ledger.age(2)

    assert len(released(ledger, contents)) == 1
    ledger.age(61)
    assert released(ledger, contents) == []

    assert outcomes(ledger, slow.redrive_id)[1] == (RedriveOutcome.SKIPPED, "newer_generation")
    assert get(ledger, second.redrive_id).calls == 1
    assert ledger.count_calls() == 4
    assert {v.state for v in ledger.operations.calls(CallFilter(), limit=9)} == {
        CallState.DEAD, CallState.QUEUED,
    }  # fmt: skip
