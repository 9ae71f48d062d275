"""A refusal for the rate blocks the key for all workers: one probe at a time, then half the accepted rate."""

from __future__ import annotations

import pytest

from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptKind, AttemptRef, CallState, WaitReason
from callgate.domain.ledger import Refused
from callgate.domain.limits import Measure, Source
from callgate.domain.reports import BreakerLine, LimitLine
from tests.contract.breaker_steps import ends
from tests.contract.flow_steps import (
    BY,
    MODEL,
    count_sent,
    declare,
    is_limited,
    prove,
    released,
    sent,
    succeeds,
    tried,
    waits,
)
from tests.support.ledger_under_test import ORG, LedgerUnderTest, a_loss


def key_of(ledger: LedgerUnderTest) -> BreakerLine:
    """The key that most tests are about."""
    lines = ledger.operations.breakers()
    return next(b for b in lines if (b.model, b.org_id) == (MODEL, ""))


def observed(ledger: LedgerUnderTest) -> list[LimitLine]:
    """What the ledger has observed about its rate."""
    return [limit for limit in ledger.operations.limits() if limit.source is Source.OBSERVED]


def seconds_blocked(ledger: LedgerUnderTest) -> float:
    """For how long the key takes no probe yet."""
    probe_at = key_of(ledger).probe_at
    assert probe_at is not None
    return (probe_at - ledger.now()).total_seconds()


def test_a_blocked_key_sends_nothing_until_its_time(ledger: LedgerUnderTest) -> None:
    """Neither the call that was refused nor any other."""
    ref = sent(ledger, "refused")
    assert is_limited(ledger, ref, 60.0).state is CallState.WAITING
    other = waits(ledger, "other")

    assert [ledger.view(key).wait_reason for key in (ref.key, other)] == [
        WaitReason.RATE_LIMITED
    ] * 2
    ledger.age(50)
    assert released(ledger) == []
    assert key_of(ledger).reason == "rate_limited"


def test_one_probe_at_a_time_goes_through(ledger: LedgerUnderTest) -> None:
    """The call that was refused waits its turn as the others do."""
    refs = [sent(ledger, f"refused {n}") for n in range(3)]
    for ref in refs:
        is_limited(ledger, ref, 30.0)
    ledger.age(31)
    (key,) = released(ledger)
    probe = tried(ledger, key)

    assert isinstance(probe, AttemptRef)
    last = ledger.view(probe).last
    assert last is not None
    assert last.kind is AttemptKind.PROBE
    assert released(ledger) == []
    assert isinstance(tried(ledger, ledger.queued("new")), Refused)


def test_a_probe_that_succeeds_unblocks_the_key(ledger: LedgerUnderTest) -> None:
    """At half the rate that was accepted, rising by that each minute."""
    for n in range(20):
        succeeds(ledger, sent(ledger, f"accepted {n}"))
    is_limited(ledger, sent(ledger, "refused"), 20.0)
    ledger.age(21)
    (key,) = released(ledger)
    probe = tried(ledger, key)
    assert isinstance(probe, AttemptRef)
    succeeds(ledger, probe)

    assert not key_of(ledger).is_open
    (limit,) = observed(ledger)
    assert (limit.measure, limit.amount) == (Measure.REQUESTS, 10)
    ledger.age(60)
    assert observed(ledger)[0].amount in (20, 21)


def test_a_probe_that_is_refused_doubles_the_wait(ledger: LedgerUnderTest) -> None:
    """Five seconds, ten, twenty; never shorter than the provider asks for."""
    ref = sent(ledger, "refused")
    is_limited(ledger, ref)
    assert seconds_blocked(ledger) == pytest.approx(5, abs=1.5)
    for wait_s in (10, 20):
        ledger.age(seconds_blocked(ledger) + 1)
        (key,) = released(ledger)
        probe = tried(ledger, key)
        assert isinstance(probe, AttemptRef)
        is_limited(ledger, probe)
        assert seconds_blocked(ledger) == pytest.approx(wait_s, abs=1.5)
    ledger.age(seconds_blocked(ledger) + 1)
    (key,) = released(ledger)
    probe = tried(ledger, key)
    assert isinstance(probe, AttemptRef)
    is_limited(ledger, probe, 300.0)
    assert seconds_blocked(ledger) == pytest.approx(300, abs=1.5)


def test_refusals_of_what_was_sent_before_tell_nothing_new(ledger: LedgerUnderTest) -> None:
    """They prolong the time if the provider says so, and do not double it."""
    refs = [sent(ledger, f"refused {n}") for n in range(4)]
    for ref in refs[:3]:
        is_limited(ledger, ref)
    assert seconds_blocked(ledger) == pytest.approx(5, abs=1.5)
    is_limited(ledger, refs[3], 40.0)
    assert seconds_blocked(ledger) == pytest.approx(40, abs=1.5)


def test_a_late_refusal_does_not_block_a_key_that_was_unblocked(ledger: LedgerUnderTest) -> None:
    """It was sent before."""
    late, ref = sent(ledger, "late"), sent(ledger, "refused")
    is_limited(ledger, ref)
    ledger.age(1)
    prove(ledger)
    is_limited(ledger, late, 60.0)

    assert not key_of(ledger).is_open


def test_a_key_that_was_blocked_by_hand_stays_blocked(ledger: LedgerUnderTest) -> None:
    """A refusal gives it no time to end."""
    ref = sent(ledger, "refused")
    ledger.operations.set_breaker("openai", MODEL, "", is_open=True, by=BY)
    is_limited(ledger, ref, 5.0)

    assert key_of(ledger).probe_at is None


def test_a_probe_lost_with_its_worker_does_not_keep_the_key_blocked(
    ledger: LedgerUnderTest,
) -> None:
    """Its attempt expires, and the next probe is made."""
    is_limited(ledger, sent(ledger, "refused"))
    waits(ledger, "other")
    ledger.age(6)
    (key,) = released(ledger)
    probe = tried(ledger, key)
    assert isinstance(probe, AttemptRef)
    ledger.settle(a_loss(probe, 1, due_in_s=3_600.0))
    ledger.age(seconds_blocked(ledger) + 1)

    assert len(released(ledger)) == 1


def test_an_own_key_is_blocked_alone(ledger: LedgerUnderTest) -> None:
    """Other organisations use another key."""
    prove(ledger, credential="acme")
    is_limited(ledger, sent(ledger, "refused", claim={"credential": "acme"}), 60.0)

    assert isinstance(tried(ledger, ledger.queued("other")), AttemptRef)


def test_every_wait_ends(ledger: LedgerUnderTest) -> None:
    """A call that is refused again and again is rejected when it has waited long enough in total."""
    ref = sent(ledger, "refused")
    is_limited(ledger, ref)
    for _ in range(40):
        ledger.age(600)
        keys = released(ledger)
        if not keys:
            continue
        probe = tried(ledger, keys[0])
        if isinstance(probe, Refused):
            break
        is_limited(ledger, probe)
    view = ledger.view(ref.key)

    assert (view.state, view.end_reason) == (CallState.REJECTED, "rate_limited")
    assert view.posted_nano_usd == 0


def test_after_a_while_without_refusals_the_rate_is_free(ledger: LedgerUnderTest) -> None:
    """What was observed is forgotten."""
    is_limited(ledger, sent(ledger, "refused"))
    assert len(observed(ledger)) == 1
    ledger.age(700)
    prove(ledger)

    assert observed(ledger) == []
    assert count_sent(ledger, "free", 9) == 9


def test_a_declaration_has_its_own_limits_beside_the_observed_one(ledger: LedgerUnderTest) -> None:
    """The lower counts."""
    declare(ledger)
    for n in range(2):
        succeeds(ledger, sent(ledger, f"accepted {n}"))
    is_limited(ledger, sent(ledger, "refused"))
    ledger.age(6)
    (key,) = released(ledger)
    probe = tried(ledger, key)
    assert isinstance(probe, AttemptRef)
    succeeds(ledger, probe)

    assert count_sent(ledger, "next", 9) == 1


def test_a_key_that_failed_and_is_then_refused_starts_slowly_too(
    ledger: LedgerUnderTest,
) -> None:
    """Its breaker was open for failures, and the probe meets a refusal for the rate."""
    ledger.set_budget(1_000, org_id="bolt")
    refs = [sent(ledger, f"failed {n}", org_id=org) for n, org in enumerate((ORG, ORG, "bolt"))]
    for ref in refs:
        ends(ledger, ref, Health.FAILED)
    waits(ledger, "other")
    ledger.age(11)
    (key,) = released(ledger)
    probe = tried(ledger, key)
    assert isinstance(probe, AttemptRef)
    is_limited(ledger, probe)

    assert key_of(ledger).reason == "rate_limited"
    assert [limit.amount for limit in observed(ledger)] == [6]
