"""The breaker's rules, without a ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain import retry
from callgate.domain.breaker import (
    FAILURES_MAX,
    NO_FAILURE,
    PROBE_WAIT_MAX_S,
    Admission,
    Breaker,
    Guard,
    Health,
    Why,
    health_of,
)
from callgate.domain.provider import Billing, Failure

T0 = datetime(2026, 11, 28, 12, tzinfo=UTC)
SHARED = Breaker("openai", "m1", "", "", changed_at=T0)


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
        (failure("endpoint_refused"), Health.KEY_REFUSED),
        (failure("bad_request", status=400), Health.NEUTRAL),
        (failure("not_found", status=404), Health.NEUTRAL),
        (failure("request_too_large", status=413), Health.NEUTRAL),
        (failure("unprocessable", status=422), Health.NEUTRAL),
        (failure("rate_limited", status=429), Health.LIMITED),
        (failure("content_filtered", Billing.UNKNOWN, 400), Health.NEUTRAL),
        (retry.WORKER_LOST, Health.NEUTRAL),
        (retry.DEADLINE_BEFORE_SEND, Health.NEUTRAL),
        (retry.LEASE_BEFORE_SEND, Health.NEUTRAL),
        (retry.SUPERSEDED_BEFORE_SEND, Health.NEUTRAL),
    ],
)
def test_what_an_attempt_says_about_its_provider(ended: Failure | None, health: Health) -> None:
    """Refusals of the request itself, and what went wrong here, say nothing."""
    assert health_of(ended) is health


def attempt(n: int) -> UUID:
    """An attempt's id."""
    return UUID(int=n)


def fails(guard: Guard, numbers: Iterable[int], health: Health = Health.FAILED) -> Guard:
    """The guard once attempts have failed, each settled as many seconds after the start as its number."""
    for n in numbers:
        guard = guard.after(attempt(n), at(0.5), health, Why("server_error"), at(n))
    return guard


def of(org_id: str, shared: Breaker = SHARED) -> Guard:
    """What guards the attempts of an organisation that has not failed yet."""
    return Guard(shared, replace(shared, org_id=org_id, failed_orgs=(), trials=()))


def all_left_alone() -> Breaker:
    """The shared breaker, opened at 3 s by two failures of acme and one of bolt."""
    return fails(of("bolt", fails(of("acme"), (1, 2)).shared), (3,)).shared


def admit(guard: Guard, seconds: float, *, others_wait: bool = False) -> Admission:
    """What becomes of an attempt at a moment."""
    return guard.admit(at(seconds), others_wait=others_wait)


def test_three_failures_in_a_row_open_its_own() -> None:
    """Two do not, and a success between them starts the count again."""
    twice = fails(of("acme"), (1, 2))

    after_success = twice.after(attempt(3), at(1), Health.ALIVE, NO_FAILURE, at(3))
    again = fails(after_success, (4,))
    thrice = fails(twice, (3,))

    assert not twice.own.is_open
    assert (again.own.failures, again.own.is_open) == (1, False)
    assert (thrice.own.is_open, thrice.own.reason) == (True, "server_error")


@pytest.mark.parametrize(
    ("failures", "is_open"),
    [
        (["acme"] * 9, False),
        (["acme", "acme", "bolt"], True),
        (["acme", "bolt", "acme"], True),
        (["acme", "bolt", "cog"], True),
        (["acme", "bolt"], False),
        (["acme", "acme", "", "bolt"], False),
    ],
)
def test_the_shared_one_opens_by_two_organisations_at_least(
    failures: list[str], is_open: bool
) -> None:
    """However often one has failed; an empty name is a success."""
    shared = SHARED
    for n, org_id in enumerate(failures, 1):
        health = Health.FAILED if org_id else Health.ALIVE
        guard = of(org_id or "acme", shared)
        shared = guard.after(attempt(n), at(0.5), health, Why("timeout"), at(n)).shared

    assert shared.is_open is is_open


def test_a_refused_key_opens_its_own_at_once() -> None:
    """Nothing else of that organisation is sent to meet the same refusal; another one's failure then opens all."""
    refused = fails(of("acme"), (1,), Health.KEY_REFUSED)

    assert refused.own.is_open
    assert admit(refused, 5) is Admission.WAIT
    assert not refused.shared.is_open
    assert fails(of("bolt", refused.shared), (2,)).shared.is_open


def test_what_is_left_alone_hears_of_no_more_failures() -> None:
    """A probe of its own says nothing against the provider, nor one of the shared breaker against the organisation."""
    own_open = fails(of("acme"), (1, 2, 3))
    proven = of("bolt", own_open.shared).after(attempt(4), at(4), Health.ALIVE, NO_FAILURE, at(5))
    probing = Guard(proven.shared, own_open.own).with_trial(attempt(5), at(13))
    probed = probing.after(attempt(5), at(13), Health.FAILED, Why("timeout"), at(14))
    asked = of("cog", all_left_alone()).with_trial(attempt(6), at(13))
    failed = asked.after(attempt(6), at(13), Health.FAILED, Why("timeout"), at(14))

    assert (probed.shared.failures, probed.own.probe_at) == (0, at(34))
    assert (failed.own.failures, failed.shared.probe_at) == (0, at(34))


def test_what_was_sent_before_the_change_does_not_change_it() -> None:
    """Answers to earlier attempts drip in: they neither close an open breaker nor count against a closed one."""
    opened = fails(of("acme"), (1, 2, 3))

    late_success = opened.after(attempt(9), at(1), Health.ALIVE, NO_FAILURE, at(4))
    probed = opened.with_trial(attempt(9), at(13))
    closed = probed.after(attempt(9), at(13), Health.ALIVE, NO_FAILURE, at(14))
    late_failure = closed.after(attempt(8), at(1), Health.FAILED, Why("timeout"), at(15))

    assert late_success.own.is_open
    assert not closed.own.is_open
    assert (late_failure.own.failures, late_failure.shared.failures) == (0, 0)


def test_an_unproven_one_lets_three_through() -> None:
    """Each counts for ten seconds; beside three of one organisation there is room for one of another."""
    guard = of("acme")
    for n in range(FAILURES_MAX):
        assert admit(guard, 0) is Admission.ON_TRIAL
        guard = guard.with_trial(attempt(n), at(0))

    assert admit(guard, 9) is Admission.WAIT
    assert admit(guard, 10) is Admission.ON_TRIAL
    other = of("bolt", guard.shared)
    assert other.headroom(at(9)) == 1
    taken = other.with_trial(attempt(9), at(5)).shared
    assert [of(org, taken).headroom(at(9)) for org in ("acme", "bolt", "cog")] == [0, 0, 0]
    proven = guard.after(attempt(0), at(0), Health.ALIVE, NO_FAILURE, at(2))
    assert admit(proven, 3) is Admission.PASSED
    assert admit(proven, 63) is Admission.ON_TRIAL


@pytest.mark.parametrize("guard", [fails(of("acme"), (1, 2, 3)), of("cog", all_left_alone())])
def test_probes_come_one_by_one_and_ever_more_rarely(guard: Guard) -> None:
    """Ten seconds after it opened, then twenty, forty, ... ten minutes; a freed probe does not hold up the next."""
    now, waits = 3, []
    for n in range(10, 20):
        before = now
        while admit(guard, now) is not Admission.PROBE:
            now += 1
        waits.append(now - before)
        guard = guard.with_trial(attempt(n), at(now))
        assert admit(guard, now + 86_400) is Admission.WAIT
        guard = guard.after(attempt(n), at(now), Health.FAILED, Why("timeout"), at(now))

    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]


def test_a_probe_that_says_nothing_is_made_again() -> None:
    """Its worker was lost: the wait is not doubled, and the breaker is not stuck."""
    guard = fails(of("acme"), (1, 2, 3)).with_trial(attempt(9), at(13))

    freed = guard.after(attempt(9), at(13), Health.NEUTRAL, NO_FAILURE, at(40))

    assert admit(freed, 49) is Admission.WAIT
    assert admit(freed, 50) is Admission.PROBE


def test_probes_come_from_different_organisations_in_turn() -> None:
    """Whose call was the last probe waits while others do; at first it is who failed most often."""
    shared = all_left_alone()
    assert admit(of("acme", shared), 60, others_wait=True) is Admission.WAIT
    assert admit(of("bolt", shared), 60, others_wait=True) is Admission.PROBE
    guard = of("bolt", shared).with_trial(attempt(9), at(13))
    shared = guard.after(attempt(9), at(13), Health.FAILED, Why("timeout"), at(14)).shared

    assert admit(of("bolt", shared), 60, others_wait=True) is Admission.WAIT
    assert admit(of("bolt", shared), 60) is Admission.PROBE
    assert admit(of("acme", shared), 60, others_wait=True) is Admission.PROBE


def test_what_an_operator_opened_is_not_probed() -> None:
    """It stays as it is until it is closed by hand."""
    opened = of("acme", SHARED.opened(Why("maintenance until noon"), None, at(1)))

    assert admit(opened, 9_999_999) is Admission.WAIT
    assert opened.headroom(at(9_999_999)) == 0


ORGS = ("acme", "bolt", "cog")
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(list(Health)), st.floats(0, 30), st.booleans(), st.sampled_from(ORGS)
    ),
    max_size=60,
)


@given(events=EVENTS)
def test_it_never_lets_more_through_than_it_may(
    events: list[tuple[Health, float, bool, str]],
) -> None:
    """Open: one attempt at a time. Closed and unproven: failures and trials of an organisation are three at most."""
    shared, now = SHARED, T0
    own = {org_id: of(org_id).own for org_id in ORGS}
    under_way: list[tuple[UUID, datetime, str]] = []
    for n, (health, pause_s, ends, org_id) in enumerate(events):
        now += timedelta(seconds=pause_s)
        if ends and under_way:
            attempt_id, made_at, whose = under_way.pop(0)
            guard = Guard(shared, own[whose])
            guard = guard.after(attempt_id, made_at, health, Why("code"), now)
            shared, own[whose] = guard.shared, guard.own
        guard = Guard(shared, own[org_id])
        if (admission := guard.admit(now, others_wait=False)) is not Admission.WAIT:
            guard = guard.with_trial(attempt(n), now)
            shared, own[org_id] = guard.shared, guard.own
            under_way.append((attempt(n), now, org_id))
        young = [t.org_id for t in shared.trials if now - t.made_at < timedelta(seconds=10)]
        for breaker in (shared, *own.values()):
            assert len(breaker.trials) <= 1 or not breaker.is_open
            assert breaker.probe_wait_s <= PROBE_WAIT_MAX_S
        if admission is Admission.ON_TRIAL:
            doubtful = (*young, *shared.failed_orgs)
            assert doubtful.count(org_id) <= FAILURES_MAX
            assert len(doubtful) <= 2 * len(ORGS)


@given(
    failures=st.lists(st.sampled_from([Health.FAILED, Health.KEY_REFUSED]), max_size=20),
    slow=st.integers(0, 5),
)
def test_one_organisation_never_stops_another(failures: list[Health], slow: int) -> None:
    """Whatever its calls come to, and however many are under way: another one is let through."""
    guard = of("acme")
    for n, health in enumerate(failures):
        guard = guard.after(attempt(n), at(1), health, Why("code"), at(2))
    for n in range(slow):
        if guard.admit(at(60), others_wait=False) is not Admission.WAIT:
            guard = guard.with_trial(attempt(100 + n), at(60))

    assert of("bolt", guard.shared).admit(at(61), others_wait=True) is Admission.ON_TRIAL
