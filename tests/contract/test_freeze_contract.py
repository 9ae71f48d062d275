"""A freeze: an organisation's calls are paused, and it submits nothing new."""

from __future__ import annotations

import pytest

from callgate.domain.calls import AttemptRef, CallState, WaitReason
from callgate.domain.errors import OrganisationFrozen
from callgate.domain.ledger import Refused, SubmitOutcome
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.contract.flow_steps import released, sent, succeeds, tried, waits
from tests.support.ledger_under_test import ORG, LedgerUnderTest, a_submission

BY = By("ann", "unpaid since May")
OTHER = "bolt"
FREEZE = PauseKey(org_id=ORG, is_freeze=True)
WHY = f"^organisation {ORG} is frozen \\(unpaid since May\\): submit again when an operator has"


@pytest.fixture
def two_orgs(ledger: LedgerUnderTest) -> LedgerUnderTest:
    """A ledger in which two organisations have a budget."""
    ledger.set_budget(1_000, org_id=OTHER)
    return ledger


def test_a_frozen_organisation_submits_nothing_new(two_orgs: LedgerUnderTest) -> None:
    """Nor does a submission join a call, replay a result, or tell of a dead one. Others submit."""
    two_orgs.succeeded("ended")
    two_orgs.dead("dead")
    two_orgs.queued("open")
    two_orgs.operations.pause(FREEZE, by=BY)
    before = two_orgs.count_calls()

    for content in ("new", "ended", "dead", "open"):
        with pytest.raises(OrganisationFrozen, match=WHY):
            two_orgs.queued(content)
    assert two_orgs.count_calls() == before

    assert isinstance(tried(two_orgs, two_orgs.queued("new", org_id=OTHER)), AttemptRef)


def test_nothing_of_a_refused_batch_is_stored(two_orgs: LedgerUnderTest) -> None:
    """Not even what another organisation submits with it."""
    two_orgs.operations.pause(FREEZE, by=BY)

    with pytest.raises(OrganisationFrozen):
        two_orgs.submit(a_submission("theirs", org_id=OTHER), a_submission("mine"))

    assert two_orgs.count_calls() == 0


def test_a_known_submission_answers_as_before(ledger: LedgerUnderTest) -> None:
    """The client did not get the first answer, and asks again."""
    known = a_submission("known")
    (first,) = ledger.submit(known)
    ledger.operations.pause(FREEZE, by=BY)

    assert ledger.submit(known) == [first]
    assert first.outcome is SubmitOutcome.CREATED


def test_its_calls_are_paused(two_orgs: LedgerUnderTest) -> None:
    """What is queued waits, what is in flight ends, and after the freeze all goes on."""
    in_flight = sent(two_orgs, "in flight")
    queued = two_orgs.queued("queued")
    two_orgs.operations.pause(FREEZE, by=BY)

    assert succeeds(two_orgs, in_flight).state is CallState.SUCCEEDED
    assert isinstance(tried(two_orgs, queued), Refused)
    assert two_orgs.view(queued).wait_reason is WaitReason.PAUSED

    assert two_orgs.operations.resume(FREEZE, by=BY)
    assert released(two_orgs) == [queued]
    two_orgs.queued("new")


def test_a_pause_and_a_freeze_of_an_organisation_are_two(ledger: LedgerUnderTest) -> None:
    """To unfreeze does not resume what was paused before, nor the other way round."""
    ledger.operations.pause(PauseKey(org_id=ORG), by=BY)
    key = waits(ledger, "call")
    ledger.operations.pause(FREEZE, by=BY)
    assert [pause.key.is_freeze for pause in ledger.operations.pauses()] == [False, True]

    assert ledger.operations.resume(FREEZE, by=BY)
    ledger.queued("new")
    assert released(ledger) == []

    assert not ledger.operations.resume(FREEZE, by=BY)
    assert ledger.operations.resume(PauseKey(org_id=ORG), by=BY)
    assert released(ledger) == [key]


def test_both_changes_are_in_the_action_log(ledger: LedgerUnderTest) -> None:
    """As what they are."""
    ledger.operations.pause(FREEZE, by=BY)
    ledger.operations.resume(FREEZE, by=BY)

    done = [(a.action, a.org_id, a.subject, a.by) for a in ledger.operations.actions(limit=2)]
    subject = f"organisation {ORG}"
    assert done == [("unfreeze", ORG, subject, BY), ("freeze", ORG, subject, BY)]


@pytest.mark.parametrize(
    "names", [{}, {"provider": "openai"}, {"org_id": ORG, "model": "m"}, {"call_type": "t"}]
)
def test_only_an_organisation_is_frozen(names: dict[str, str]) -> None:
    """A provider submits nothing."""
    with pytest.raises(ValueError, match="a freeze is of one organisation"):
        PauseKey(**names, is_freeze=True)
