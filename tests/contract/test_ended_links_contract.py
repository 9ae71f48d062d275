"""Links of calls that end, and who inherits them, on both ledgers."""

from __future__ import annotations

from uuid import uuid4

import pytest

from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import Delivery
from tests.support.ledger_under_test import (
    LINK,
    ORG,
    LedgerUnderTest,
    a_failure,
    a_submission,
    a_success,
    an_answer,
)

# Deliveries.


@pytest.mark.parametrize("state", [CallState.SUCCEEDED, CallState.DEAD])
def test_a_call_that_ends_brings_its_links_along(ledger: LedgerUnderTest, state: CallState) -> None:
    """Of everybody who gave one; the settler delivers them, and has ten seconds for it."""
    linked = [a_submission(link=LINK), a_submission(link=LINK.replace("7", "8"))]
    answers = ledger.submit(linked[0], a_submission(), linked[1])
    ref = ledger.claim(answers[0].key)
    ledger.record(an_answer(ref))
    settle = a_success(ref) if state is CallState.SUCCEEDED else a_failure(ref)

    (settled,) = ledger.settle(settle)

    assert settled.has_links
    assert ledger.view(ref.key).due_at is None
    assert ledger.links() == []
    found = ledger.links(keys=[ref.key])
    assert set(found) == {
        Delivery(new.submission_id, ref.key, state, str(new.link), ORG) for new in linked
    }
    assert len(found) == 2


def test_a_retry_brings_no_links(ledger: LedgerUnderTest) -> None:
    """Nobody is told before the end."""
    ref = ledger.answered(link=LINK)

    (settled,) = ledger.settle(a_failure(ref, CallState.WAITING, due_in_s=0))

    assert not settled.has_links
    assert ledger.links(keys=[ref.key]) == []


def test_a_delivered_call_rests(ledger: LedgerUnderTest) -> None:
    """It is told of with its last link, and not before."""
    first, second = a_submission(link=LINK), a_submission(link=LINK)
    key = ledger.submit(first, second)[0].key
    ref = ledger.claim(key)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref))

    ledger.deliver(first.submission_id)
    (left,) = ledger.links(keys=[key])
    ledger.deliver(second.submission_id, first.submission_id, uuid4())

    assert left.submission_id == second.submission_id
    assert ledger.links(keys=[key]) == []
    assert ledger.view(key).due_at is None
    ledger.deliver()


def test_a_link_on_a_replayed_call_falls_due_at_once(ledger: LedgerUnderTest) -> None:
    """Its submitter is told as if the call had just ended; those who were told before are not."""
    told = a_submission(link=LINK)
    ledger.submit(told)
    key = ledger.succeeded().key
    ledger.deliver(told.submission_id)
    late = a_submission(link=LINK)

    ledger.submit(late, a_submission())

    assert ledger.due() == ()
    assert ledger.links() == [Delivery(late.submission_id, key, CallState.SUCCEEDED, LINK, ORG)]


def test_a_link_on_a_dead_call_falls_due_at_once(ledger: LedgerUnderTest) -> None:
    """Bad news travels the same way."""
    key = ledger.dead().key
    late = a_submission(link=LINK)

    ledger.submit(late)

    assert ledger.links() == [Delivery(late.submission_id, key, CallState.DEAD, LINK, ORG)]


# Redrive.


def test_a_redrive_inherits_the_links_of_the_dead(ledger: LedgerUnderTest) -> None:
    """Everybody who waited for the dead generation hears of the next one, delivered before or not."""
    links = [LINK, LINK.replace("7", "8")]
    told, waiting = (a_submission(link=link) for link in links)
    key = ledger.submit(told, waiting, a_submission())[0].key
    ledger.dead()
    ledger.deliver(told.submission_id)

    (redriven,) = ledger.submit(a_submission(force=True, inherit_links=True))
    ref = ledger.claim(redriven.key)
    ledger.record(an_answer(ref))
    (settled,) = ledger.settle(a_success(ref))

    assert redriven.key == CallKey(key.call_id, 2)
    assert settled.has_links
    found = ledger.links(keys=[ref.key])
    assert sorted(d.link for d in found) == links
    ids = {d.submission_id for d in found}
    assert ids.isdisjoint({told.submission_id, waiting.submission_id})
    assert {(d.key, d.state) for d in found} == {(ref.key, CallState.SUCCEEDED)}


def test_a_redrive_still_tells_of_the_death(ledger: LedgerUnderTest) -> None:
    """An undelivered link of the dead generation is delivered as such; links fire per generation."""
    new = a_submission(link=LINK)
    ledger.submit(new)
    dead = ledger.dead()
    ledger.submit(a_submission(force=True, inherit_links=True))
    ledger.age(11)

    assert ledger.links() == [Delivery(new.submission_id, dead.key, CallState.DEAD, LINK, ORG)]


def test_links_are_inherited_again(ledger: LedgerUnderTest) -> None:
    """A redrive that dies too can be redriven, and still everybody hears of it once."""
    ledger.dead(link=LINK)
    for _ in range(2):
        (redriven,) = ledger.submit(a_submission(force=True, inherit_links=True))
        ref = ledger.claim(redriven.key)
        ledger.record(an_answer(ref))
        (settled,) = ledger.settle(a_failure(ref))

        assert [d.link for d in ledger.links(keys=[settled.ref.key])] == [LINK]


def test_a_forced_run_inherits_nothing_unasked(ledger: LedgerUnderTest) -> None:
    """Only a redrive speaks for those who asked before."""
    ledger.dead(link=LINK)

    ref = ledger.running(force=True)
    ledger.record(an_answer(ref))

    assert not ledger.settle(a_success(ref))[0].has_links


def test_a_second_redrive_joins_the_first(ledger: LedgerUnderTest) -> None:
    """Two operators at once: one next generation, one inheritance."""
    ledger.dead(link=LINK)

    first, second = ledger.submit(*[a_submission(force=True, inherit_links=True) for _ in range(2)])

    ref = ledger.claim(first.key)
    ledger.record(an_answer(ref))
    assert second.key == first.key
    assert ledger.settle(a_success(ref))[0].has_links
    assert [d.link for d in ledger.links(keys=[ref.key])] == [LINK]
