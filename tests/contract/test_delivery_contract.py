"""Links of calls that have ended: whose turn it is, and what becomes of those that cannot be published."""

from __future__ import annotations

from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import Delivery, LinkFailure, LinkOutcome
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import EndReason
from callgate.domain.retention import Purged
from tests.support.ledger_under_test import LINK, ORG, LedgerUnderTest, a_submission

WHY = "refused by the broker: ResponseError"


def rejected_with_links(
    ledger: LedgerUnderTest, content: str, links: int = 1, org_id: str = ORG
) -> CallKey:
    """Cancel a call that has some links: all of them are to be delivered at once."""
    new = [a_submission(content, org_id=org_id, link=LINK) for _ in range(links)]
    key = ledger.submit(*new)[0].key
    assert ledger.operations.end([key], code=EndReason.CANCELLED, message="by a test") == [key]
    return key


def orgs_of(links: list[Delivery]) -> list[str]:
    """Whose links they are."""
    return [link.org_id for link in links]


def test_links_are_anybodys_ten_seconds_after_the_end(ledger: LedgerUnderTest) -> None:
    """The settler tells at once; others are there for settlers that vanish. Recovery has nothing to do with it."""
    new = a_submission(link=LINK)
    ledger.submit(new)
    key = ledger.succeeded().key
    ledger.age(7)
    early = ledger.links()
    ledger.age(5)

    assert early == []
    assert ledger.links() == [Delivery(new.submission_id, key, CallState.SUCCEEDED, LINK, ORG)]
    assert ledger.due() == ()


def test_a_delivered_link_does_not_come_back(ledger: LedgerUnderTest) -> None:
    """Of two, only the one that is missing does."""
    told, missed = a_submission(link=LINK), a_submission(link=LINK)
    ledger.submit(told, missed)
    ledger.succeeded()
    ledger.age(11)
    ledger.deliver(told.submission_id)

    (link,) = ledger.links()
    ledger.deliver(missed.submission_id)
    ledger.age(60)

    assert link.submission_id == missed.submission_id
    assert ledger.links() == []


def test_what_was_taken_is_lent_for_ten_seconds(ledger: LedgerUnderTest) -> None:
    """Nobody else gets it meanwhile; if its taker vanishes, it comes again, and that is no failure of the link's."""
    rejected_with_links(ledger, "a")
    first, at_once = ledger.links(), ledger.links()
    ledger.age(7)
    soon = ledger.links()
    ledger.age(5)

    assert (len(first), at_once, soon) == (1, [], [])
    assert ledger.links() == first


def test_a_link_that_is_refused_waits_by_itself(ledger: LedgerUnderTest) -> None:
    """Until its own time; its neighbours are delivered meanwhile."""
    key = rejected_with_links(ledger, "a", links=2)
    bad, good = ledger.links()

    ledger.ledger.keep_link_outcomes(
        [LinkOutcome(bad.submission_id, WHY, 40.0), LinkOutcome(good.submission_id)]
    )
    ledger.age(35)
    early = ledger.links()
    ledger.age(10)
    (again,) = ledger.links()

    assert early == []
    assert (again.submission_id, again.tries) == (bad.submission_id, 1)
    (failure,) = ledger.operations.link_failures(key, limit=10)
    assert (failure.submission_id, failure.tries, failure.why) == (bad.submission_id, 1, WHY)
    assert failure.try_at is not None
    assert failure.given_up_at is None


def test_a_link_that_is_given_up_is_kept_with_its_reason(ledger: LedgerUnderTest) -> None:
    """Nobody is tried without end; operators can see who was not told, and why. The call is at rest."""
    key = rejected_with_links(ledger, "a", links=2)
    bad, waits = ledger.links()

    ledger.ledger.keep_link_outcomes(
        [
            LinkOutcome(bad.submission_id, "broken: KeyError"),
            LinkOutcome(waits.submission_id, WHY, 10.0),
        ]
    )

    given_up, failed = ledger.operations.link_failures(key, limit=10)
    assert given_up == LinkFailure(
        bad.submission_id, 1, "broken: KeyError", None, given_up.given_up_at
    )
    assert given_up.given_up_at is not None
    assert failed.submission_id == waits.submission_id
    ledger.age(11)
    assert [link.submission_id for link in ledger.links()] == [waits.submission_id]
    ledger.deliver(waits.submission_id)
    ledger.age(100_000)
    assert ledger.links() == []
    assert ledger.purge() == Purged(calls=1)


def test_a_call_with_a_link_that_waits_is_not_purged(ledger: LedgerUnderTest) -> None:
    """The link would be lost."""
    key = rejected_with_links(ledger, "a")
    (link,) = ledger.links()
    ledger.ledger.keep_link_outcomes([LinkOutcome(link.submission_id, WHY, 3_600.0)])

    assert ledger.purge() == Purged()
    assert ledger.view(key).is_purged is False


def test_organisations_take_turns(ledger: LedgerUnderTest) -> None:
    """However many links one has, and however old they are: another waits for no more than fifty of them."""
    for number in range(4):
        rejected_with_links(ledger, f"many {number}", links=20, org_id="a")
    ledger.age(60)
    rejected_with_links(ledger, "one", org_id="b")

    first = ledger.links(limit=60)
    ledger.deliver(*(link.submission_id for link in first))
    behind = ledger.links(limit=60, after="a")
    second = ledger.links(limit=60)

    assert orgs_of(first) == ["a"] * 50 + ["b"]
    assert behind == []
    assert orgs_of(second) == ["a"] * 30


def test_a_batch_is_bounded_within_one_call(ledger: LedgerUnderTest) -> None:
    """A call with many links is told of bit by bit, and none is told twice."""
    key = rejected_with_links(ledger, "a", links=7)
    told = []
    while links := ledger.links(limit=3):
        assert len(links) <= 3
        told += [link.submission_id for link in links]
        ledger.deliver(*(link.submission_id for link in links))

    assert len(told) == len(set(told)) == 7
    assert ledger.links(keys=[key]) == []


def test_a_call_that_has_just_ended_is_told_of_a_few_at_a_time(ledger: LedgerUnderTest) -> None:
    """The settler has other things to do; the rest is anybody's as soon as the first are done."""
    key = rejected_with_links(ledger, "a", links=25)

    at_once = ledger.links(keys=[key, CallKey(key.call_id, 9)])
    ledger.deliver(*(link.submission_id for link in at_once))

    assert len(at_once) == 10
    assert len(ledger.links()) == 15


def test_a_link_that_comes_while_others_wait_is_told_at_once(ledger: LedgerUnderTest) -> None:
    """A new submitter does not wait for the back-off of an earlier one."""
    rejected_with_links(ledger, "other")
    ledger.succeeded(link=LINK)
    ledger.age(11)
    for link in ledger.links():
        ledger.ledger.keep_link_outcomes([LinkOutcome(link.submission_id, WHY, 3_600.0)])
    late = a_submission(link=LINK)

    (answer,) = ledger.submit(late)

    assert answer.outcome is SubmitOutcome.REPLAYED
    assert [link.submission_id for link in ledger.links()] == [late.submission_id]


def test_outcomes_of_links_nobody_knows_change_nothing(ledger: LedgerUnderTest) -> None:
    """A second answer to a link that is done with is too late."""
    key = rejected_with_links(ledger, "a")
    (link,) = ledger.links()
    ledger.deliver(link.submission_id)

    ledger.ledger.keep_link_outcomes([LinkOutcome(link.submission_id, WHY, 5.0)])
    ledger.ledger.keep_link_outcomes([])

    assert ledger.links(keys=[key]) == []
    assert ledger.operations.link_failures(key, limit=10) == []
