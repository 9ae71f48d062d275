"""The breaker's rules, without a ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain import retry
from callgate.domain.breaker import (
    FAILURES_MAX,
    PROBE_WAIT_MAX_S,
    Admission,
    Breaker,
    Health,
    health_of,
)
from callgate.domain.retry import Billing, Failure

T0 = datetime(2026, 11, 28, 12, tzinfo=UTC)
CLOSED = Breaker("openai", "m1", "", changed_at=T0)


def at(seconds: float) -> datetime:
    """A moment after the start."""
    return T0 + timedelta(seconds=seconds)


def failure(
    code: str,
    billing: Billing = Billing.UNBILLED,
    status: int | None = None,
    retryable: bool = True,
) -> Failure:
    """A failure with a code."""
    return Failure(code, code, retryable, billing, status)


@pytest.mark.parametrize(
    ("ended", "health"),
    [
        (None, Health.ALIVE),
        (failure("invalid_output", Billing.BY_USAGE), Health.ALIVE),
        (failure("empty_reply", Billing.BY_USAGE), Health.ALIVE),
        (failure("broken_off", Billing.BY_USAGE), Health.FAILED),
        (failure("server_error", Billing.BY_USAGE, 502), Health.FAILED),
        (failure("timeout", Billing.UNKNOWN), Health.FAILED),
        (failure("connection_lost", Billing.UNKNOWN), Health.FAILED),
        (failure("invalid_response", Billing.UNKNOWN), Health.FAILED),
        (failure("server_error", Billing.UNKNOWN, 503), Health.FAILED),
        (failure("server_error", Billing.UNBILLED, 503), Health.FAILED),
        (failure("connection_failed"), Health.FAILED),
        (failure("tls_failed"), Health.FAILED),
        (failure("authentication_failed", status=401), Health.KEY_REFUSED),
        (failure("insufficient_quota", status=402), Health.KEY_REFUSED),
        (failure("insufficient_quota", status=200), Health.KEY_REFUSED),
        (failure("permission_denied", status=403), Health.KEY_REFUSED),
        (failure("proxy_failed", status=407), Health.KEY_REFUSED),
        (failure("insufficient_quota", status=429), Health.KEY_REFUSED),
        (failure("missing_credentials"), Health.KEY_REFUSED),
        (failure("bad_request", status=400), Health.NEUTRAL),
        (failure("not_found", status=404), Health.NEUTRAL),
        (failure("request_too_large", status=413), Health.NEUTRAL),
        (failure("unprocessable", status=422), Health.NEUTRAL),
        (failure("rate_limited", status=429), Health.NEUTRAL),
        (failure("content_filtered", Billing.UNKNOWN, 400), Health.NEUTRAL),
        (retry.LOST, Health.NEUTRAL),
        (retry.DEADLINE_BEFORE_SEND, Health.NEUTRAL),
        (retry.LEASE_BEFORE_SEND, Health.NEUTRAL),
        (retry.OVERTAKEN_BEFORE_SEND, Health.NEUTRAL),
    ],
)
def test_what_an_attempt_says_about_its_provider(ended: Failure | None, health: Health) -> None:
    """Refusals of the request itself, and what went wrong here, say nothing."""
    assert health_of(ended) is health


def attempt(n: int) -> UUID:
    """An attempt's id."""
    return UUID(int=n)


def failed_thrice() -> Breaker:
    """A breaker that three attempts opened, the last one settled at 3 s."""
    breaker = CLOSED
    for n in (1, 2, 3):
        breaker = breaker.after(attempt(n), at(0.5), Health.FAILED, "server_error", at(n))
    return breaker


def test_three_failures_in_a_row_open_it() -> None:
    """Two do not, and a success between them starts the count again."""
    twice = CLOSED
    for n in (1, 2):
        twice = twice.after(attempt(n), at(0.5), Health.FAILED, "timeout", at(n))

    after_success = twice.after(attempt(3), at(1), Health.ALIVE, None, at(3))
    again = after_success.after(attempt(4), at(1), Health.FAILED, "timeout", at(4))

    assert not twice.is_open
    assert (again.failures, again.is_open) == (1, False)
    assert failed_thrice().is_open
    assert failed_thrice().reason == "server_error"


def test_a_refused_key_opens_it_at_once() -> None:
    """Nobody else of that credential is sent to meet the same refusal."""
    opened = CLOSED.after(attempt(1), at(1), Health.KEY_REFUSED, "authentication_failed", at(2))

    assert opened.is_open
    assert opened.admit("acme", at(5), others_wait=False) is Admission.WAIT


def test_what_was_sent_before_the_change_does_not_change_it() -> None:
    """Answers to earlier attempts drip in: they neither close an open breaker nor count against a closed one."""
    opened = failed_thrice()

    late_success = opened.after(attempt(9), at(1), Health.ALIVE, None, at(4))
    probed = opened.with_trial(Admission.PROBE, attempt(9), "acme", at(13))
    closed = probed.after(attempt(9), at(13), Health.ALIVE, None, at(14))
    late_failure = closed.after(attempt(8), at(1), Health.FAILED, "timeout", at(15))

    assert late_success.is_open
    assert not closed.is_open
    assert late_failure.failures == 0


def test_an_unproven_one_lets_three_through() -> None:
    """With one failure already there it lets two through; each counts for ten seconds."""
    breaker = CLOSED
    for n in range(FAILURES_MAX):
        assert breaker.admit("acme", at(0), others_wait=False) is Admission.ON_TRIAL
        breaker = breaker.with_trial(Admission.ON_TRIAL, attempt(n), "acme", at(0))

    assert breaker.admit("acme", at(9), others_wait=False) is Admission.WAIT
    assert breaker.admit("acme", at(10), others_wait=False) is Admission.ON_TRIAL
    proven = breaker.after(attempt(0), at(0), Health.ALIVE, None, at(2))
    assert proven.admit("acme", at(3), others_wait=False) is Admission.PASSED
    assert proven.admit("acme", at(63), others_wait=False) is Admission.ON_TRIAL


def test_probes_come_one_by_one_and_ever_more_rarely() -> None:
    """Ten seconds after it opened, then twenty, forty, ... ten minutes; a freed probe does not hold up the next."""
    breaker, now, waits = failed_thrice(), at(3), []
    for n in range(10, 20):
        before = now
        while breaker.admit("acme", now, others_wait=False) is not Admission.PROBE:
            now += timedelta(seconds=1)
        waits.append((now - before).total_seconds())
        breaker = breaker.with_trial(Admission.PROBE, attempt(n), "acme", now)
        assert breaker.admit("globex", now + timedelta(days=1), others_wait=False) is Admission.WAIT
        breaker = breaker.after(attempt(n), now, Health.FAILED, "timeout", now)

    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]


def test_a_probe_that_says_nothing_is_made_again() -> None:
    """Its worker was lost: the wait is not doubled, and the breaker is not stuck."""
    breaker = failed_thrice().with_trial(Admission.PROBE, attempt(9), "acme", at(13))

    freed = breaker.after(attempt(9), at(13), Health.NEUTRAL, None, at(40))

    assert freed.admit("acme", at(49), others_wait=False) is Admission.WAIT
    assert freed.admit("acme", at(50), others_wait=False) is Admission.PROBE


def test_probes_come_from_different_organisations_in_turn() -> None:
    """Whose call was the last probe waits while others do."""
    breaker = failed_thrice().with_trial(Admission.PROBE, attempt(9), "acme", at(13))
    breaker = breaker.after(attempt(9), at(13), Health.FAILED, "timeout", at(14))

    assert breaker.admit("acme", at(60), others_wait=True) is Admission.WAIT
    assert breaker.admit("acme", at(60), others_wait=False) is Admission.PROBE
    assert breaker.admit("globex", at(60), others_wait=True) is Admission.PROBE


def test_a_call_that_was_tried_before_is_no_probe_while_fresh_ones_wait() -> None:
    """A probe may be the last attempt that it has."""
    breaker = failed_thrice()

    waits = breaker.admit("acme", at(60), others_wait=False, fresher_wait=True)

    assert waits is Admission.WAIT


def test_what_an_operator_opened_is_not_probed() -> None:
    """It stays as it is until it is closed by hand."""
    opened = CLOSED.opened("maintenance until noon", None, at(1))

    assert opened.admit("acme", at(9_999_999), others_wait=False) is Admission.WAIT
    assert opened.room(at(9_999_999)) == 0


EVENTS = st.lists(
    st.tuples(st.sampled_from(list(Health)), st.floats(0, 30), st.booleans()), max_size=60
)


@given(events=EVENTS)
def test_it_never_lets_more_through_than_it_may(events: list[tuple[Health, float, bool]]) -> None:
    """Open: one attempt at a time. Closed and unproven: failures and trials together are three at most."""
    breaker, now = CLOSED, T0
    under_way: list[tuple[UUID, datetime]] = []
    for n, (health, pause_s, ends) in enumerate(events):
        now += timedelta(seconds=pause_s)
        if ends and under_way:
            attempt_id, made_at = under_way.pop(0)
            breaker = breaker.after(attempt_id, made_at, health, "code", now)
        admission = breaker.admit("acme", now, others_wait=False)
        if admission is not Admission.WAIT:
            breaker = breaker.with_trial(admission, attempt(n), "acme", now)
            under_way.append((attempt(n), now))
        young = [made_at for _, made_at in breaker.trials if now - made_at < timedelta(seconds=10)]
        assert len(breaker.trials) <= 1 if breaker.is_open else True
        if not breaker.is_open and admission is Admission.ON_TRIAL:
            assert len(young) + breaker.failures <= FAILURES_MAX
        assert breaker.probe_wait_s <= PROBE_WAIT_MAX_S
