"""Reading: which attempt comes along, and which of the heavy columns."""

from __future__ import annotations

import pytest

from callgate.domain.calls import (
    LIGHT_MAX_BYTES,
    AttemptRef,
    AttemptStatus,
    Bodies,
    CallKey,
    CallState,
)
from tests.support.ledger_under_test import (
    REPLY,
    USAGE,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)


def test_calls_are_read_in_the_order_asked_for(ledger: LedgerUnderTest) -> None:
    """None where there is none, and the same call as often as it was asked for."""
    one, two = ledger.queued("one"), ledger.queued("two")
    missing = CallKey(one.call_id, 2)

    views = ledger.ledger.read([two, missing, one, two, missing])

    assert [view.key if view else None for view in views] == [two, None, one, two, None]
    assert list(ledger.ledger.read([missing, missing])) == [None, None]
    assert list(ledger.ledger.read([])) == []


@pytest.mark.parametrize(
    ("bodies", "has_request", "has_reply"),
    [
        (Bodies.NONE, False, False),
        (Bodies.REQUEST, True, False),
        (Bodies.REPLY, False, True),
        (Bodies.BOTH, True, True),
    ],
)
def test_bodies_travel_only_when_wanted(
    ledger: LedgerUnderTest, bodies: Bodies, has_request: bool, has_reply: bool
) -> None:
    """A read of states transfers no bodies."""
    view = ledger.view(ledger.succeeded().key, bodies)

    assert view.last is not None
    assert (view.request is not None, view.last.reply is not None) == (has_request, has_reply)
    assert view.is_purged is False


@pytest.mark.parametrize(
    ("size", "is_light"), [(LIGHT_MAX_BYTES, True), (LIGHT_MAX_BYTES + 1, False)]
)
def test_a_large_request_stays_behind(ledger: LedgerUnderTest, size: int, is_light: bool) -> None:
    """Its size is told, and it can be had by itself."""
    key = ledger.queued("large", request=b"x" * size)

    view = ledger.view(key, Bodies.LIGHT)

    assert (view.request is not None, view.is_request_left_behind) == (is_light, not is_light)
    assert view.request_bytes == size
    assert ledger.view(key, Bodies.REQUEST).request == b"x" * size


def test_a_reply_is_kept_byte_for_byte(ledger: LedgerUnderTest) -> None:
    """Blanks, key order and an escaped NUL come back as they went in."""
    view = ledger.view(ledger.succeeded().key, Bodies.REPLY)

    assert view.last is not None
    assert view.last.reply == REPLY


def test_waiting_readers_poll_without_the_reply(ledger: LedgerUnderTest) -> None:
    """A reply belongs to a call that has ended; a settlement asks for the attempt by its id."""
    ref = ledger.answered()

    polled = ledger.view(ref.key, Bodies.REPLY).last
    settler = ledger.view(ref, Bodies.BOTH).last

    assert polled is not None
    assert polled.reply is None
    assert settler is not None
    assert settler.reply == REPLY


def test_a_purged_reply_is_gone(ledger: LedgerUnderTest) -> None:
    """Figures stay, texts do not."""
    key = ledger.succeeded().key
    assert ledger.purge().calls == 1

    last = ledger.view(key, Bodies.BOTH).last

    assert last is not None
    assert (last.reply, last.usage) == (None, USAGE)


def test_an_open_call_comes_with_its_newest_attempt(ledger: LedgerUnderTest) -> None:
    """The one that is under way, or that failed last."""
    first = ledger.waiting()
    after_first = ledger.view(first.key).last
    second = ledger.claim(ledger.requeued(first.key))

    assert after_first is not None
    assert (after_first.attempt_id, after_first.attempt) == (first.attempt_id, 1)
    newest = ledger.view(first.key).last
    assert newest is not None
    assert (newest.attempt_id, newest.attempt) == (second.attempt_id, 2)


def test_an_attempt_can_be_asked_for(ledger: LedgerUnderTest) -> None:
    """The log task reads the attempt its message names, not the newest one."""
    first = ledger.waiting()
    ledger.claim(ledger.requeued(first.key))

    view = ledger.view(first)

    assert view.last is not None
    assert (view.last.attempt_id, view.last.status) == (first.attempt_id, AttemptStatus.FAILED)
    assert (view.key, view.state, view.attempt) == (first.key, CallState.RUNNING, 2)


def test_an_ended_call_comes_with_its_winner(ledger: LedgerUnderTest) -> None:
    """A late success wins over the newer attempt that it made needless."""
    first = ledger.lost()
    second = ledger.claim(ledger.requeued(first.key))
    ledger.record(an_answer(first), an_answer(second))
    ledger.settle(a_success(first, expected_status=AttemptStatus.UNKNOWN), a_failure(second))

    view = ledger.view(first.key)

    assert view.last is not None
    assert (view.state, view.attempt) == (CallState.SUCCEEDED, 2)
    assert (view.last.attempt_id, view.last.attempt) == (first.attempt_id, 1)


def test_an_attempt_belongs_to_its_own_call(ledger: LedgerUnderTest) -> None:
    """An attempt of another call is never shown as one of this one."""
    one, two = ledger.running("one"), ledger.running("two")

    view = ledger.view(AttemptRef(one.key, two.attempt_id))

    assert view.key == one.key
    assert view.last is None


def test_an_attempt_is_read_as_it_was_written(ledger: LedgerUnderTest) -> None:
    """Every figure of `ai_call_log` that callers need, at each step of its life."""
    reserve = a_reserve(ledger.queued(), 100, worker_id="worker-9:1")
    ledger.reserve(reserve)
    dispatched = ledger.view(reserve.key).last
    assert dispatched is not None
    ref = AttemptRef(reserve.key, dispatched.attempt_id)

    assert dispatched.status is AttemptStatus.DISPATCHED
    assert (dispatched.hold_nano_usd, dispatched.posted_nano_usd) == (100, None)
    assert (dispatched.worker_id, dispatched.price_source) == ("worker-9:1", reserve.price_source)
    assert (dispatched.usage, dispatched.latency_ms, dispatched.finished_at) == (None, None, None)

    ledger.record(an_answer(ref, latency_ms=41, provider_request_id="req-9"))
    answered = ledger.view(ref).last

    assert answered is not None
    assert (answered.status, answered.posted_nano_usd) == (AttemptStatus.ANSWERED, None)
    assert (answered.latency_ms, answered.provider_request_id) == (41, "req-9")
    assert answered.finished_at is not None
    assert answered.finished_at >= answered.started_at

    ledger.settle(a_success(ref, 60, price_source="overlay: as settled"))
    settled = ledger.view(ref).last

    assert settled is not None
    assert (settled.status, settled.posted_nano_usd) == (AttemptStatus.SUCCEEDED, 60)
    assert (settled.usage, settled.service_tier) == (USAGE, "default")
    assert (settled.price_source, settled.error) == ("overlay: as settled", None)
    assert (settled.hold_nano_usd, settled.latency_ms) == (100, 41)


def test_a_call_costs_what_all_its_attempts_were_posted_at(ledger: LedgerUnderTest) -> None:
    """Failed and unknown attempts included, other generations not."""
    first = ledger.lost()
    second = ledger.claim(ledger.requeued(first.key))
    ledger.record(an_answer(second))
    ledger.settle(a_success(second, 60))
    ledger.submit(a_submission(force=True))

    assert ledger.view(first.key).posted_nano_usd == 160
    assert ledger.view(CallKey(first.key.call_id, 2)).posted_nano_usd == 0


@pytest.mark.parametrize("error", ["no JSON", '{"code": "\\u0000"}', '{"code": "\\ud800"}'])
def test_a_broken_error_fails_no_read(ledger: LedgerUnderTest, error: str) -> None:
    """Nobody looks into the errors of attempts to read a call: one broken row would fail every batch it is in."""
    ref = ledger.running()
    ledger.settle(a_loss(ref, error=error))

    assert ledger.view(ref.key).worker_losses == 1


def test_lost_attempts_are_counted_until_a_late_answer(ledger: LedgerUnderTest) -> None:
    """A call that kills its workers is poisonous; one whose answer was only late is not."""
    first = ledger.lost()
    assert ledger.view(first.key).worker_losses == 1

    ledger.record(an_answer(first))

    assert ledger.view(first.key).worker_losses == 0
