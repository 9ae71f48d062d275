"""Breakers: when they open, probe and close, on both ledgers."""

from __future__ import annotations

import pytest

from callgate.domain.breaker import UNAVAILABLE_CODE, Health
from callgate.domain.breaker_words import BreakerChange
from callgate.domain.calls import AttemptKind, AttemptRef, CallState, WaitReason
from callgate.domain.ledger import Refused
from callgate.domain.reports import By
from tests.contract.breaker_steps import (
    BY,
    MODEL,
    breaker,
    breakers,
    claim,
    ends,
    opened,
    published,
    queued,
    sent,
    waits,
)
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_failure,
    a_loss,
    an_answer,
)


def test_an_unproven_breaker_lets_three_through(ledger: LedgerUnderTest) -> None:
    """The fourth call waits, holds nothing and says why; the first success lets it go."""
    refs = [sent(ledger, f"trial {n}") for n in range(3)]
    fourth = waits(ledger, "fourth")
    view = ledger.view(fourth)

    assert view.wait_reason is WaitReason.PROVIDER
    assert UNAVAILABLE_CODE in (view.error or "")
    assert ledger.figures() == (30, 0)
    assert published(ledger) == []

    settled = ends(ledger, refs[0], Health.ALIVE)

    assert settled.has_freed_waiters
    assert published(ledger) == [fourth]
    assert ledger.view(fourth).wait_reason is None
    assert isinstance(claim(ledger, fourth), AttemptRef)
    assert all(isinstance(sent(ledger, f"more {n}"), AttemptRef) for n in range(5))


def test_trials_age(ledger: LedgerUnderTest) -> None:
    """A slow model holds nobody up for longer than ten seconds."""
    for n in range(3):
        sent(ledger, f"slow {n}")
    fourth = waits(ledger, "fourth")
    ledger.age(10)

    assert published(ledger) == [fourth]
    assert isinstance(claim(ledger, fourth), AttemptRef)


def test_three_failures_open_it(ledger: LedgerUnderTest) -> None:
    """The third says so, once; then nothing is let through, and nothing is held."""
    refs = [sent(ledger, f"fails {n}") for n in range(3)]
    changes = [
        ends(ledger, ref, Health.FAILED, f"code {n}").breaker_changes for n, ref in enumerate(refs)
    ]

    assert changes == [(), (), (BreakerChange("openai", MODEL, "", ORG, True, "code 2"),)]
    waits(ledger, "another")
    assert ledger.figures() == (0, 0)
    assert (breaker(ledger).failures, breaker(ledger).waiting) == (3, 1)


def test_a_success_between_failures_keeps_it_closed(ledger: LedgerUnderTest) -> None:
    """Only failures in a row count."""
    for n, health in enumerate([Health.FAILED, Health.FAILED, Health.ALIVE] * 2):
        ends(ledger, sent(ledger, f"call {n}"), health)

    assert not breaker(ledger).is_open


def test_a_refused_key_opens_it_at_once(ledger: LedgerUnderTest) -> None:
    """Of that credential alone: an organisation with a key of its own goes on."""
    ends(ledger, sent(ledger, "refused"), Health.KEY_REFUSED, "authentication_failed")

    waits(ledger, "another")
    own = claim(ledger, queued(ledger, "own key"), credential="acme")
    assert isinstance(own, AttemptRef)
    assert ledger.view(own).last.credential == "acme"  # type: ignore[union-attr]
    assert breaker(ledger).is_open
    assert not breakers(ledger, "acme")[""].is_open


def test_only_the_first_call_that_meets_a_refused_key_ends(ledger: LedgerUnderTest) -> None:
    """Whether the others are settled in its batch or later: they were under way, paid nothing, and wait."""
    refs = [sent(ledger, f"call {n}") for n in range(3)]
    ledger.record(*(an_answer(ref) for ref in refs))
    refused = [a_failure(r, health=Health.KEY_REFUSED, failure_code="who?") for r in refs]

    settled = ledger.settle(*refused[:2]) + ledger.settle(refused[2])

    assert [s.state for s in settled] == [CallState.DEAD, CallState.WAITING, CallState.WAITING]
    for key in published(ledger):
        assert isinstance(claim(ledger, key), Refused)
    assert (breaker(ledger).waiting, ledger.figures()) == (2, (0, 0))


def test_what_says_nothing_changes_nothing(ledger: LedgerUnderTest) -> None:
    """Refusals of the request, and lost workers: they only free their trial."""
    for n in range(6):
        ends(ledger, sent(ledger, f"refused {n}"), Health.NEUTRAL)
    for n in range(6):
        ledger.settle(a_loss(sent(ledger, f"lost {n}"), 10))

    ((org_id, line),) = breakers(ledger).items()
    assert (org_id, line.is_open, line.failures) == ("", False, 0)


def test_one_probe_after_ten_seconds(ledger: LedgerUnderTest) -> None:
    """One call is released, its attempt is a probe, and all others wait for what it brings."""
    opened(ledger)
    keys = [waits(ledger, f"patient {n}") for n in range(3)]
    assert published(ledger) == []
    ledger.age(10)

    (probe,) = published(ledger)
    assert probe in keys
    assert published(ledger) == []
    ref = claim(ledger, probe)
    assert isinstance(ref, AttemptRef)
    assert ledger.view(ref).last.kind is AttemptKind.PROBE  # type: ignore[union-attr]
    ledger.age(3_600)
    assert published(ledger) == []
    waits(ledger, "late")

    settled = ends(ledger, ref, Health.ALIVE)

    assert settled.breaker_changes == (BreakerChange("openai", MODEL, "", ORG, False, None),)
    assert len(published(ledger)) == 3


@pytest.mark.parametrize("health", [Health.FAILED, Health.KEY_REFUSED])
def test_a_failed_probe_doubles_the_wait(ledger: LedgerUnderTest, health: Health) -> None:
    """The next one may be made after twenty seconds."""
    opened(ledger)
    waits(ledger, "one")
    waits(ledger, "two")
    ledger.age(10)
    (probe,) = published(ledger)
    ref = claim(ledger, probe)
    assert isinstance(ref, AttemptRef)

    assert ends(ledger, ref, health).breaker_changes == ()

    ledger.age(19)
    assert set(published(ledger)) <= {probe}
    ledger.age(1)
    assert len(set(published(ledger)) - {probe}) == 1


def test_a_lost_probe_is_made_again(ledger: LedgerUnderTest) -> None:
    """Whatever ends the attempt frees the breaker; the wait is not doubled."""
    opened(ledger)
    first, second = waits(ledger, "one"), waits(ledger, "two")
    ledger.age(10)
    (probe,) = published(ledger)
    ref = claim(ledger, probe)
    assert isinstance(ref, AttemptRef)

    ledger.settle(a_loss(ref, 10, due_in_s=600.0))

    ledger.age(10)
    (other,) = {first, second} - {probe}
    assert published(ledger) == [other]


def test_old_attempts_change_nothing(ledger: LedgerUnderTest) -> None:
    """A success that was sent before it opened does not close it."""
    ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=BY)
    early = sent(ledger, "early")
    ledger.age(1)
    opened(ledger)

    ends(ledger, early, Health.ALIVE)

    assert breaker(ledger).is_open


def test_an_operator_opens_and_closes_it(ledger: LedgerUnderTest) -> None:
    """Opened by hand it is not probed; closed it is proven; both are in the action log."""
    line = ledger.operations.set_breaker("openai", MODEL, "", is_open=True, by=BY)
    key = waits(ledger, "patient")
    ledger.age(86_000)

    assert (line.is_open, line.reason) == (True, BY.reason)
    assert published(ledger) == []

    line = ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=By("bo", "done"))

    assert (line.is_open, line.reason, line.failures) == (False, None, 0)
    assert published(ledger) == [key]
    actions = ledger.operations.actions(limit=2)
    assert [(a.action, a.by.operator, a.by.reason, a.subject) for a in actions] == [
        ("breaker.close", "bo", "done", f"openai/{MODEL}"),
        ("breaker.open", "ada", BY.reason, f"openai/{MODEL}"),
    ]


def test_a_model_that_nobody_uses_is_forgotten(ledger: LedgerUnderTest) -> None:
    """After a week, where nothing is under way, nobody waits, and no operator has opened it."""
    opened(ledger)
    ledger.age(10)
    ledger.operations.set_breaker("openai", "opened", "", is_open=True, by=BY)
    ledger.age(7 * 86_400 - 60)
    ledger.operations.set_breaker("openai", "young", "", is_open=False, by=BY)
    assert ledger.retention.forget_breakers(limit=100) == 0
    ledger.age(60)

    assert ledger.retention.forget_breakers(limit=1) == 1
    assert ledger.retention.forget_breakers(limit=100) > 0

    assert {line.model for line in ledger.operations.breakers()} == {"opened", "young"}


def a_minute_of(ledger: LedgerUnderTest, healths: list[Health], *orgs: str) -> None:
    """Let results come, of organisations in turn, until one is not let through."""
    for n, health in enumerate(healths):
        ref = claim(ledger, queued(ledger, f"result {n}", org_id=orgs[n % len(orgs)]))
        if not isinstance(ref, AttemptRef):
            return
        ends(ledger, ref, health)


def test_failures_of_half_the_attempts_open_it(ledger: LedgerUnderTest) -> None:
    """Of several organisations, though no three failures come in a row. One of them does not count."""
    for org_id in ("bolt", "cora"):
        ledger.set_budget(1_000, org_id=org_id)
    ends(ledger, sent(ledger, "proves"), Health.ALIVE)
    pair = [Health.FAILED] * 2 + [Health.ALIVE] * 2
    a_minute_of(ledger, pair * 9, ORG, "bolt", "cora")
    assert breaker(ledger, "").is_open


def test_failures_of_one_organisation_open_its_own(ledger: LedgerUnderTest) -> None:
    """And nobody else's."""
    ledger.set_budget(1_000, org_id="bolt")
    ends(ledger, sent(ledger, "proves"), Health.ALIVE)
    a_minute_of(ledger, [Health.FAILED, Health.ALIVE] * 10 + [Health.FAILED], ORG)

    assert breaker(ledger).is_open
    assert not breaker(ledger, "").is_open


def test_less_than_half_is_no_reason(ledger: LedgerUnderTest) -> None:
    """A provider may fail now and then."""
    for org_id in ("bolt", "cora"):
        ledger.set_budget(1_000, org_id=org_id)
    ends(ledger, sent(ledger, "proves"), Health.ALIVE)
    a_minute_of(ledger, [Health.FAILED, *[Health.ALIVE] * 3] * 10, ORG, "bolt", "cora")

    assert not any(b.is_open for b in breakers(ledger).values())
