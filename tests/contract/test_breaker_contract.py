"""Breakers: what `reserve` lets through, what `settle` tells them, and whom they release."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.breaker import UNAVAILABLE_CODE, BreakerChange, Health
from callgate.domain.calls import AttemptKind, AttemptRef, CallKey, CallState, WaitReason
from callgate.domain.ledger import NotClaimed, Refused, Reserved, Settled
from callgate.domain.reports import BreakerLine, By
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
    open_memory,
    open_postgres,
)

MODEL = "fresh"
"""A model nobody has vouched for."""
BY = By("ada", "the provider said so")


def breakers(ledger: LedgerUnderTest, credential: str = "") -> dict[str, BreakerLine]:
    """The breakers of the fresh model by organisation; everybody's is empty."""
    lines = ledger.operations.breakers()
    return {b.org_id: b for b in lines if (b.model, b.credential) == (MODEL, credential)}


def breaker(ledger: LedgerUnderTest, org_id: str = ORG) -> BreakerLine:
    """One of them: by default that of the organisation that most tests are about."""
    return breakers(ledger)[org_id]


def queued(ledger: LedgerUnderTest, content: str, **changes: Any) -> CallKey:
    """A call to the fresh model."""
    return ledger.queued(content, model=MODEL, **changes)


def claim(ledger: LedgerUnderTest, key: CallKey, **changes: Any) -> AttemptRef | Refused:
    """Try to claim a call."""
    (outcome,) = ledger.reserve(a_reserve(key, 10, **changes))
    assert not isinstance(outcome, NotClaimed)
    if isinstance(outcome, Refused):
        return outcome
    assert isinstance(outcome, Reserved)
    return outcome.ref


def sent(ledger: LedgerUnderTest, content: str, **changes: Any) -> AttemptRef:
    """An attempt at the fresh model that was let through."""
    ref = claim(ledger, queued(ledger, content, **changes))
    assert isinstance(ref, AttemptRef)
    return ref


def waits(ledger: LedgerUnderTest, content: str, **changes: Any) -> CallKey:
    """A call to the fresh model that was not let through."""
    refused = claim(ledger, queued(ledger, content, **changes))
    assert isinstance(refused, Refused)
    assert (refused.state, refused.refusal) == (CallState.WAITING, None)
    return refused.key


def ends(
    ledger: LedgerUnderTest, ref: AttemptRef, health: Health, code: str | None = "server_error"
) -> Settled:
    """Record and settle an attempt; a failed call is dead."""
    ledger.record(an_answer(ref))
    made = a_success(ref, 5) if health is Health.ALIVE else a_failure(ref)
    return ledger.settle(replace(made, health=health, failure_code=code))[0]


def opened(ledger: LedgerUnderTest, org_id: str = ORG) -> None:
    """Open the breaker that an organisation has of the fresh model."""
    for n in range(3):
        ends(ledger, sent(ledger, f"fails {n}", org_id=org_id), Health.FAILED)
    assert breaker(ledger, org_id).is_open


def opened_for_all(ledger: LedgerUnderTest) -> None:
    """Open everybody's breaker of the fresh model: two organisations have failed, and acme more often."""
    ledger.set_budget(1_000, org_id="bolt")
    for n, org in enumerate((ORG, ORG, "bolt")):
        ends(ledger, sent(ledger, f"{org} fails {n}", org_id=org), Health.FAILED)
    assert {org for org, b in breakers(ledger).items() if b.is_open} == {""}


def published(ledger: LedgerUnderTest) -> list[CallKey]:
    """The calls that the due query releases now."""
    return [due.key for due in ledger.due(expire=False)]


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


def test_who_was_released_and_is_no_probe_passes_its_turn(ledger: LedgerUnderTest) -> None:
    """An organisation without money for its calls keeps nobody from looking whether the provider is back."""
    opened_for_all(ledger)
    for n in range(3):
        waits(ledger, f"acme {n}")
    waits(ledger, "bolt", org_id="bolt")
    ledger.age(10)
    (first,) = published(ledger)
    poor = ledger.view(first).org_id
    (refused,) = ledger.reserve(a_reserve(first, 1_001))
    assert isinstance(refused, Refused)

    (second,) = published(ledger)

    assert {poor, ledger.view(second).org_id} == {"acme", "bolt"}
    assert isinstance(claim(ledger, second), AttemptRef)


def test_what_says_nothing_changes_nothing(ledger: LedgerUnderTest) -> None:
    """Refusals of the request, and lost workers: they only free their trial."""
    for n in range(6):
        ends(ledger, sent(ledger, f"refused {n}"), Health.NEUTRAL)
    for n in range(6):
        ledger.settle(a_loss(sent(ledger, f"lost {n}"), 10))

    ((org_id, line),) = breakers(ledger).items()
    assert (org_id, line.is_open, line.failures) == ("", False, 0)


def test_one_probe_after_ten_seconds(ledger: LedgerUnderTest) -> None:
    """One call is released, its attempt is a probe, and everybody else waits for what it brings."""
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


def test_old_attempts_change_nothing(ledger: LedgerUnderTest) -> None:
    """A success that was sent before it opened does not close it."""
    ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=BY)
    early = sent(ledger, "early")
    ledger.age(1)
    opened(ledger)

    ends(ledger, early, Health.ALIVE)

    assert breaker(ledger).is_open


def test_patience_has_an_end(ledger: LedgerUnderTest) -> None:
    """After `wait_max_s`, counted from the first refusal, the call is rejected, unpaid."""
    opened(ledger)
    key = queued(ledger, "patient")
    claim(ledger, key, wait_max_s=60.0)
    ledger.operations.set_breaker("openai", MODEL, "", is_open=True, by=BY)
    ledger.age(59)
    assert published(ledger) == []
    ledger.age(1)
    assert published(ledger) == [key]

    refused = claim(ledger, key, wait_max_s=60.0)

    assert isinstance(refused, Refused)
    assert refused.state is CallState.REJECTED
    assert UNAVAILABLE_CODE in (ledger.view(key).error or "")
    assert ledger.figures() == (0, 0)


def test_patience_ends_for_a_call_that_is_always_the_probe(ledger: LedgerUnderTest) -> None:
    """It never waits for a breaker in between, and still it is rejected in the end."""
    opened(ledger)
    ledger.age(10)
    key = queued(ledger, "alone")
    ref = claim(ledger, key, wait_max_s=60.0)
    assert isinstance(ref, AttemptRef)
    ledger.record(an_answer(ref))
    ledger.settle(
        a_failure(ref, CallState.WAITING, due_in_s=60.0, health=Health.FAILED, failure_code="x")
    )
    ledger.age(60)
    assert published(ledger) == [key]

    refused = claim(ledger, key, wait_max_s=60.0)

    assert isinstance(refused, Refused)
    assert refused.state is CallState.REJECTED


def test_a_budget_is_asked_first(ledger: LedgerUnderTest) -> None:
    """A call that never fits is refused at once, whatever its provider does."""
    opened(ledger)

    (refused,) = ledger.reserve(a_reserve(queued(ledger, "large"), 1_001))

    assert isinstance(refused, Refused)
    assert (refused.state, refused.refusal is None) == (CallState.REJECTED, False)


def test_a_cancelled_call_waits_no_longer(ledger: LedgerUnderTest) -> None:
    """It is not counted, and not released."""
    opened(ledger)
    key = waits(ledger, "patient")

    ledger.operations.end([key], code="cancelled", message="")

    assert breaker(ledger).waiting == 0
    ledger.age(10)
    assert published(ledger) == []


def test_a_long_queue_is_released_in_portions(ledger: LedgerUnderTest) -> None:
    """Two hundred at a time; the next ones when those are claimed."""
    ledger.set_budget(100_000)
    opened(ledger)
    keys = [
        answer.key
        for answer in ledger.submit(*(a_submission(f"call {n}", model=MODEL) for n in range(250)))
    ]
    ledger.reserve(*(a_reserve(key, 10) for key in keys))
    assert breaker(ledger).waiting == 250

    ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=BY)

    first = [due.key for due in ledger.due(limit=1_000, expire=False)]
    assert len(first) == 200
    assert ledger.due(limit=1_000, expire=False) == ()
    ledger.reserve(*(a_reserve(key, 10) for key in first))
    assert len(ledger.due(limit=1_000, expire=False)) == 50


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


# One organisation beside the others.


@pytest.mark.parametrize("health", [Health.FAILED, Health.KEY_REFUSED])
def test_failures_of_one_organisation_keep_no_other_waiting(
    ledger: LedgerUnderTest, health: Health
) -> None:
    """However many there are: its own breaker opens, everybody's does not, and one success of others proves it."""
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


def test_two_organisations_open_it_for_everybody(ledger: LedgerUnderTest) -> None:
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
    """Others go on; the action names the organisation, and who closes everybody's closes it too."""
    ledger.set_budget(1_000, org_id="bolt")
    name = ("openai", MODEL, "")
    ledger.operations.set_breaker(*name, is_open=False, by=BY)
    line = ledger.operations.set_breaker(*name, ORG, is_open=True, by=BY)
    key = waits(ledger, "patient")
    sent(ledger, "another's", org_id="bolt")
    ledger.age(86_000)

    assert (line.org_id, line.is_open, published(ledger)) == (ORG, True, [])
    assert (breaker(ledger).waiting, breaker(ledger, "").waiting) == (1, 1)
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


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "end", "end", "move", "age"]),
        st.sampled_from(list(Health)),
        st.integers(1, 40),
        st.sampled_from(["acme", "acme", "bolt", "cog"]),
    ),
    min_size=10,
    max_size=40,
)


class Player:
    """Plays steps on one ledger, and says what came of each."""

    def __init__(self, ledger: LedgerUnderTest, model: str) -> None:
        self.ledger = ledger
        self.model = model
        self.under_way: list[AttemptRef] = []
        self.calls = 0

    def play(self, step: str, health: Health, number: int, org: str) -> tuple[object, ...]:
        """One step: what was let through, what was changed, how the breaker stands."""
        done: list[object] = []
        if step == "age":
            # In steps of five: every bound is a multiple, so the time that passes by itself crosses none.
            self.ledger.age(5 * (1 + number % 8))
        elif step == "end" and self.under_way:
            ref = self.under_way.pop(0)
            done.append(ends(self.ledger, ref, health, f"code {number}").breaker_changes)
        elif step == "submit":
            self.calls += 1
            content = f"{self.model} {self.calls}"
            done.append(self._claim(self.ledger.queued(content, model=self.model, org_id=org)))
        elif step == "move":
            mine = [k for k in published(self.ledger) if self.ledger.view(k).model == self.model]
            # A release is a hint: who is refused again was released too early, and waits as before.
            claims = [self._claim(key) for key in mine]
            done += [claimed for claimed in claims if claimed is not CallState.WAITING]
        lines = [line for line in self.ledger.operations.breakers() if line.model == self.model]
        return (*done, *((b.org_id, b.is_open, b.reason, b.failures, b.waiting) for b in lines))

    def _claim(self, key: CallKey) -> object:
        outcome = claim(self.ledger, key)
        if isinstance(outcome, Refused):
            return outcome.state
        self.under_way.append(outcome)
        last = self.ledger.view(outcome).last
        return last and last.kind


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_both_ledgers_do_the_same(postgres_engine: Engine, steps: list[Any]) -> None:
    """Whatever happens: the functions in the database follow the rules of the domain."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        model = f"model {uuid4()}"
        players = [Player(open_postgres(session), model), Player(open_memory(), model)]
        for player in players:
            for org in ("acme", "bolt", "cog"):
                player.ledger.set_budget(1_000_000, org_id=org)
        for step in steps:
            of_postgres, of_memory = (player.play(*step) for player in players)
            assert of_postgres == of_memory, step
