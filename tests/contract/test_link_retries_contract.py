"""Links that the broker refused: which there are, and that an operator has them tried again."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from callgate.domain.calls import CallState
from callgate.domain.dead_letters import GivenUp
from callgate.domain.delivery import LinkOutcome
from callgate.domain.reports import By
from tests.support.ledger_under_test import LINK, ORG, LedgerUnderTest

BY = By("ann", "the queue is there again")


def refused(ledger: LedgerUnderTest, content: str, again_s: float | None = None) -> UUID:
    """A link that was refused: tried again later, or given up."""
    key = ledger.rejected(content, link=LINK)
    (delivery,) = ledger.links(keys=[key])
    outcome = LinkOutcome(delivery.submission_id, f"no queue for {content}", again_s)
    ledger.ledger.keep_link_outcomes([outcome])
    return delivery.submission_id


def test_given_up_links_are_listed_page_by_page(ledger: LedgerUnderTest) -> None:
    """Newest first; delivered ones and those that are tried again are not among them."""
    first = refused(ledger, "one")
    ledger.age(60)
    second = refused(ledger, "two")
    refused(ledger, "three", 600.0)

    (newest,) = ledger.ended.given_up_links(limit=1)
    assert newest.given_up_at is not None
    after = GivenUp(newest.given_up_at, newest.submission_id)
    (older,) = ledger.ended.given_up_links(after=after, limit=5)

    assert (newest.submission_id, older.submission_id) == (second, first)
    assert (newest.why, newest.tries, newest.state) == ("no queue for two", 1, CallState.REJECTED)
    assert (newest.org_id, newest.try_at, newest.is_purged) == (ORG, None, False)
    assert ledger.ended.given_up_links("nobody", limit=5) == []
    assert len(ledger.ended.given_up_links(ORG, limit=5)) == 2


def test_links_that_are_tried_again_are_listed(ledger: LedgerUnderTest) -> None:
    """The one that is tried next comes first."""
    later, sooner = refused(ledger, "one", 900.0), refused(ledger, "two", 300.0)
    ledger.rejected("not tried yet", link=LINK)

    found = ledger.ended.failing_links(limit=5)

    assert [link.submission_id for link in found] == [sooner, later]
    assert found[0].try_at is not None
    assert found[0].given_up_at is None
    assert timedelta(seconds=290) < found[0].try_at - ledger.now() < timedelta(seconds=310)
    assert ledger.ended.failing_links("nobody", limit=5) == []
    assert len(ledger.ended.failing_links(ORG, limit=1)) == 1


def test_a_link_is_tried_again_at_once(ledger: LedgerUnderTest) -> None:
    """Given up or not, with all its tries; the action is logged once for all of them."""
    given_up, waiting = refused(ledger, "one"), refused(ledger, "two", 900.0)

    tried = ledger.ended.retry_links([given_up, waiting, uuid4()], by=BY)

    assert sorted(tried) == sorted([given_up, waiting])
    assert ledger.ended.given_up_links(limit=5) == []
    due = ledger.links()
    assert {(d.submission_id, d.tries) for d in due} == {(given_up, 0), (waiting, 0)}
    (action,) = [a for a in ledger.operations.actions(limit=5) if a.action == "links.retry"]
    assert (action.by, action.org_id, action.subject) == (BY, ORG, "2 links")
    assert action.detail["links"] == 2


def test_nothing_to_try_is_no_action(ledger: LedgerUnderTest) -> None:
    """A delivered link, one that was not refused, and one that is unknown."""
    (delivery,) = ledger.links(keys=[ledger.rejected("told", link=LINK)])
    ledger.deliver(delivery.submission_id)
    (untold,) = ledger.links(keys=[ledger.rejected("untold", link=LINK)])
    before = ledger.operations.actions(limit=5)

    tried = ledger.ended.retry_links([delivery.submission_id, untold.submission_id, uuid4()], by=BY)

    assert tried == []
    assert ledger.operations.actions(limit=5) == before


def test_a_purged_link_is_not_tried_again(ledger: LedgerUnderTest) -> None:
    """Its content is gone; it is listed as such."""
    purged = refused(ledger, "one")
    ledger.age(60)
    ledger.purge()

    (link,) = ledger.ended.given_up_links(limit=5)

    assert link.is_purged
    assert ledger.ended.retry_links([purged], by=BY) == []
