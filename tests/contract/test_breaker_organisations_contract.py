"""Breakers: what one organisation's failures mean for the others, on both ledgers."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from callgate.domain.breaker import Health
from callgate.domain.breaker_words import BreakerChange
from callgate.domain.calls import AttemptKind, AttemptRef, CallState
from callgate.domain.ledger import Refused
from tests.contract.breaker_steps import (
    BY,
    MODEL,
    breaker,
    breakers,
    claim,
    ends,
    opened,
    opened_for_all,
    published,
    sent,
    waits,
)
from tests.contract.flow_steps import a_rule, declare
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_submission,
    an_answer,
)


def test_organisations_take_turns(ledger: LedgerUnderTest) -> None:
    """Whose call was the last probe waits while another organisation does."""
    opened_for_all(ledger)
    ledger.set_budget(1_000, org_id="cog")
    orgs = {}
    for n in range(3):
        for org in ("acme", "bolt", "cog"):
            orgs[waits(ledger, f"{org} {n}", org_id=org)] = org
    probed = []
    for n in range(6):
        ledger.age(10 * 2**n)
        (key,) = published(ledger)
        ref = claim(ledger, key)
        assert isinstance(ref, AttemptRef)
        ends(ledger, ref, Health.FAILED)
        probed.append(orgs[key])

    assert probed[:3] == probed[3:]
    assert set(probed) == {"acme", "bolt", "cog"}


def test_organisations_take_turns_whatever_they_took(ledger: LedgerUnderTest) -> None:
    """A probe of the one that took least from a limit was released and refused, again and again."""
    declare(ledger, a_rule(200))
    for n in range(8):
        ends(ledger, sent(ledger, f"took {n}"), Health.ALIVE)
    opened_for_all(ledger)
    for n in range(2):
        waits(ledger, f"acme {n}")
        waits(ledger, f"bolt {n}", org_id="bolt")
    for n in range(4):
        ledger.age(10 * 2**n)
        (key,) = published(ledger)
        ref = claim(ledger, key)
        assert isinstance(ref, AttemptRef)
        ends(ledger, ref, Health.FAILED)


def test_fresh_calls_of_one_organisation_keep_no_tried_ones_behind(ledger: LedgerUnderTest) -> None:
    """It would be asked each time, could fail each time, and the others would wait for a day."""
    ledger.set_budget(1_000, org_id="bolt")
    tried = sent(ledger, "tried", org_id="bolt")
    for ref in (sent(ledger, "one"), sent(ledger, "two"), tried):
        ledger.record(an_answer(ref))
        again = a_failure(ref, CallState.WAITING, due_in_s=0.0)
        ledger.settle(replace(again, health=Health.FAILED, failure_code="server_error"))
    for n in range(3):
        waits(ledger, f"fresh {n}")
    for key in published(ledger):
        assert isinstance(claim(ledger, key), Refused)
    ledger.age(10)

    assert published(ledger) == [tried.key]


def test_who_probed_last_may_not_probe_while_others_wait(ledger: LedgerUnderTest) -> None:
    """Not even with a call that was submitted at the right moment."""
    opened_for_all(ledger)
    waits(ledger, "acme 1")
    waits(ledger, "bolt 1", org_id="bolt")
    ledger.age(10)
    (first,) = published(ledger)
    ref = claim(ledger, first)
    assert isinstance(ref, AttemptRef)
    org = ledger.view(first).org_id
    ends(ledger, ref, Health.FAILED)
    ledger.age(20)

    waits(ledger, "quick", org_id=org)
    assert {ledger.view(key).org_id for key in published(ledger)} == {"acme", "bolt"} - {org}


# One organisation beside the others.


@pytest.mark.parametrize("health", [Health.FAILED, Health.KEY_REFUSED])
def test_failures_of_one_organisation_keep_no_other_waiting(
    ledger: LedgerUnderTest, health: Health
) -> None:
    """However many there are: its own breaker opens, the shared one does not, and one success of others proves it."""
    for org in ("bolt", "cog"):
        ledger.set_budget(1_000, org_id=org)
    while ORG not in breakers(ledger) or not breaker(ledger).is_open:
        ends(ledger, sent(ledger, f"fails {uuid4()}"), health)
    waits(ledger, "its own")

    first = sent(ledger, "the first", org_id="bolt")
    waits(ledger, "the second", org_id="cog")
    ends(ledger, first, Health.ALIVE)

    assert not breaker(ledger, "").is_open
    for n in range(5):
        sent(ledger, f"more {n}", org_id="cog")
    waits(ledger, "still its own")


def test_slow_calls_of_one_organisation_leave_a_trial_to_others(ledger: LedgerUnderTest) -> None:
    """It may have three on trial; of others one is let through beside them."""
    ledger.set_budget(1_000, org_id="bolt")
    for n in range(3):
        sent(ledger, f"slow {n}")
    waits(ledger, "one more")

    sent(ledger, "another's", org_id="bolt")

    waits(ledger, "another's second", org_id="bolt")


def test_two_organisations_open_it_for_all(ledger: LedgerUnderTest) -> None:
    """One failure of a second one is enough, and operators hear whose breaker opened."""
    for org in ("bolt", "cog"):
        ledger.set_budget(1_000, org_id=org)
    opened(ledger)

    settled = ends(ledger, sent(ledger, "bolt fails", org_id="bolt"), Health.FAILED)

    assert settled.breaker_changes == (
        BreakerChange("openai", MODEL, "", "", True, "server_error"),
    )
    waits(ledger, "cog", org_id="cog")
    assert breaker(ledger, "").waiting == 1


def test_a_probe_of_one_organisation_says_nothing_against_the_provider(
    ledger: LedgerUnderTest,
) -> None:
    """Else it would be the first of two, each time that it fails."""
    ledger.set_budget(1_000, org_id="bolt")
    opened(ledger)
    probe = waits(ledger, "patient")
    ends(ledger, sent(ledger, "bolt", org_id="bolt"), Health.ALIVE)
    ledger.age(10)
    assert published(ledger) == [probe]
    ref = claim(ledger, probe)
    assert isinstance(ref, AttemptRef)
    assert ledger.view(ref).last.kind is AttemptKind.PROBE  # type: ignore[union-attr]

    ends(ledger, ref, Health.FAILED)

    assert breaker(ledger, "").failures == 0
    waits(ledger, "patient again")
    ledger.age(19)
    assert published(ledger) == []
    ledger.age(1)
    assert len(published(ledger)) == 1


def test_a_tenant_with_a_long_queue_keeps_nobody_behind(ledger: LedgerUnderTest) -> None:
    """Two hundred are released at a time: the only call of the other organisation is among the first."""
    ledger.set_budget(100_000)
    opened_for_all(ledger)
    many = ledger.submit(*(a_submission(f"call {n}", model=MODEL) for n in range(250)))
    ledger.reserve(*(a_reserve(answer.key, 10) for answer in many))
    ledger.age(1)
    only = waits(ledger, "young", org_id="bolt")

    ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=BY)

    first = [due.key for due in ledger.due(limit=1_000, expire=False)]
    assert only in first
    assert len(first) >= 150


def test_one_trial_is_given_to_organisations_in_turn(ledger: LedgerUnderTest) -> None:
    """Not to the oldest call each time."""
    for org in ("bolt", "cog"):
        ledger.set_budget(1_000, org_id=org)
    trials = [sent(ledger, f"{org} slow", org_id=org) for org in ("acme", "bolt", "cog")]
    for org in ("acme", "acme", "acme", "bolt", "cog"):
        waits(ledger, f"{org} {uuid4()}", org_id=org)
        ledger.age(1)
    released = []
    for trial in trials:
        ends(ledger, trial, Health.NEUTRAL)
        (key,) = published(ledger)
        released.append(ledger.view(key).org_id)
        sent_again = claim(ledger, key)
        assert isinstance(sent_again, AttemptRef)

    assert sorted(released) == ["acme", "bolt", "cog"]


def test_a_refused_key_ends_one_call_of_each_until_two_have_met_it(ledger: LedgerUnderTest) -> None:
    """The third organisation's waits, as all others do."""
    for org in ("bolt", "cog"):
        ledger.set_budget(1_000, org_id=org)
    refs = [sent(ledger, f"{org} {uuid4()}", org_id=org) for org in ("acme", "bolt", "cog")]
    ledger.record(*(an_answer(ref) for ref in refs))
    refused = [a_failure(r, health=Health.KEY_REFUSED, failure_code="who?") for r in refs]

    settled = ledger.settle(*refused)

    assert [s.state for s in settled] == [CallState.DEAD, CallState.DEAD, CallState.WAITING]
    assert {org for org, b in breakers(ledger).items() if b.is_open} == {"", "acme", "bolt"}


def test_an_operator_opens_and_closes_the_breaker_of_one_organisation(
    ledger: LedgerUnderTest,
) -> None:
    """Others go on; the action names the organisation, and closing the shared one closes it too."""
    ledger.set_budget(1_000, org_id="bolt")
    name = ("openai", MODEL, "")
    ledger.operations.set_breaker(*name, is_open=False, by=BY)
    line = ledger.operations.set_breaker(*name, ORG, is_open=True, by=BY)
    key = waits(ledger, "patient")
    sent(ledger, "another's", org_id="bolt")
    ledger.age(86_000)

    assert (line.org_id, line.is_open, published(ledger)) == (ORG, True, [])
    assert (breaker(ledger).waiting, breaker(ledger, "").waiting) == (1, 0)
    (action,) = ledger.operations.actions(limit=1)
    assert (action.org_id, action.subject) == (ORG, f"openai/{MODEL}")

    ledger.operations.set_breaker(*name, is_open=False, by=BY)

    assert published(ledger) == [key]
    assert not breaker(ledger).is_open


def test_an_organisation_is_forgotten_once_it_succeeds(ledger: LedgerUnderTest) -> None:
    """An hour after the change: attempts that were made before may still fail."""
    opened(ledger)
    ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=BY)
    ends(ledger, sent(ledger, "soon"), Health.ALIVE)
    assert set(breakers(ledger)) == {"", ORG}
    ledger.age(3_600)

    ends(ledger, sent(ledger, "later"), Health.ALIVE)

    assert set(breakers(ledger)) == {""}
