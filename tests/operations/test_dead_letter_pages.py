"""Pages of dead letters, refusals, undelivered links and messages in a real Flower, and what operators do there."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape, unescape

import pytest

from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.provider import Failure
from callgate.domain.reports import CallFilter, UnprocessableMessage
from tests.support.ledger_under_test import (
    LINK,
    RATE_LIMITED,
    LedgerUnderTest,
    a_failure,
    a_submission,
    an_answer,
)
from tests.support.operators_pages import PagesUnderTest
from tests.support.visitor import Seen, Visitor

HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;; --"
WHY = "the prompt was wrong"


def died(
    ledger: LedgerUnderTest,
    content: str,
    org_id: str,
    failure: Failure = RATE_LIMITED,
    **of: object,
) -> CallKey:
    """A call that died, after its attempt had posted 20 cents."""
    ledger.set_budget(10**12, org_id=org_id)
    ref = ledger.answered(content, org_id=org_id, **of)
    fingerprint = failure.fingerprint("openai")
    error = failure.to_json()
    dead = a_failure(ref, error=error, error_fingerprint=fingerprint, posted_nano_usd=200_000_000)
    assert ledger.settle(dead)[0].is_applied
    return ref.key


def group_of(ann: Visitor, org_id: str, show: str = "dead") -> Seen:
    """Click the one group of an organisation."""
    listed = ann.get(f"/dead-letters?show={show}&org={org_id}")
    (to,) = set(re.findall(r'href="(/dead-letters/group[^"]*)"', listed.text))
    return ann.get(unescape(to))


def actions(ledger: LedgerUnderTest, action: str, org_id: str) -> list[tuple[str, str, str]]:
    """Who did that, why, and with what."""
    found = ledger.operations.actions(limit=100)
    return [
        (a.by.operator, a.by.reason, a.subject)
        for a in found
        if (a.action, a.org_id) == (action, org_id)
    ]


def test_what_failed_alike_is_one_line_with_its_price(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """How many, since when, what they cost; then the calls themselves, and where each leads."""
    keys = [died(ledger, content, "alike") for content in ("one", "two")]

    listed = ann.get("/dead-letters?org=alike").words
    group = group_of(ann, "alike")

    for word in ("rate_limited", "slow down", "new", "$0.40"):
        assert word in listed, word
        assert word in group.words or word == "rate_limited", word
    assert all(f'href="/calls/{key.task_id}"' in group.text for key in keys)
    redrive = re.search(r'href="(/redrives/new[^"]*)"', group.text)
    assert redrive is not None
    assert f"fp={RATE_LIMITED.fingerprint('openai')}" in redrive[1]
    assert "state=dead" in redrive[1]
    assert "org=alike" in redrive[1]


def test_a_call_that_died_alike_again_stands_out(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Another try did not help."""
    died(ledger, "once more", "again")
    (answer,) = ledger.submit(a_submission("once more", org_id="again", force=True))
    ref = ledger.claim(answer.key)
    ledger.record(an_answer(ref))
    ledger.settle(a_failure(ref))

    assert "failed again (1)" in ann.get("/dead-letters?org=again").words
    assert "failed again" in group_of(ann, "again").words


def test_a_group_is_discarded_by_who_knows_its_size(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Not with another number; once, with a reason, and with a row of the action log."""
    keys = [died(ledger, content, "given-up") for content in ("one", "two", "three")]
    group = group_of(ann, "given-up")

    wrong = ann.submit(group, "Discard", expected="2", reason=WHY)
    assert "Nothing was changed: you expect 2, and 3 match" in wrong.alerts
    assert {ledger.state(key) for key in keys} == {CallState.DEAD}

    done = ann.submit(group_of(ann, "given-up"), "Discard", expected="3", reason=WHY)
    assert "Discarded: 3 of 3 dead letters." in done.alerts
    assert {ledger.state(key) for key in keys} == {CallState.REJECTED}
    assert actions(ledger, "dead_letters.discard", "given-up") == [("ann", WHY, "3 dead letters")]
    assert "Nothing is left in this group" in done.words


def test_a_stale_page_says_that_nothing_matches(
    pages: PagesUnderTest, ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """Another operator was first; a form that is sent twice counts once."""
    died(ledger, "one", "stale")
    hers = group_of(ann, "stale")
    ben = pages.visitor("ben")
    his = group_of(ben, "stale")
    ann.submit(hers, "Discard", expected="1", reason=WHY)

    late = ben.submit(his, "Discard", expected="1", reason=WHY)
    twice = ann.submit(hers, "Discard", expected="1", reason=WHY)

    assert "Nothing was changed: nothing matches any more" in late.alerts
    assert "was sent before" in twice.alerts
    assert len(actions(ledger, "dead_letters.discard", "stale")) == 1


@pytest.mark.parametrize("expected", ["", "-1", "1.5", "lots", "9" * 30])
def test_a_number_that_is_none_changes_nothing(
    ledger: LedgerUnderTest, ann: Visitor, expected: str
) -> None:
    key = died(ledger, f"one {expected}", "unnumbered")

    answer = ann.submit(group_of(ann, "unnumbered"), "Discard", expected=expected, reason=WHY)

    assert answer.status == 400
    assert ledger.state(key) is CallState.DEAD


def test_a_viewer_reads_and_changes_nothing(pages: PagesUnderTest, ledger: LedgerUnderTest) -> None:
    """Its button is off and says why; the form of an operator does not help."""
    key = died(ledger, "one", "viewed")
    vera = pages.visitor("vera")
    group = group_of(vera, "viewed")
    form = group.form("Discard")

    posted = vera.send(form, group.url, expected="1", reason=WHY)
    stolen = group_of(pages.visitor("ann"), "viewed").form("Discard")
    crossed = vera.send(stolen, group.url, expected="1", reason=WHY)

    assert not form.is_enabled
    assert "vera has no role operator" in group.words
    assert (posted.status, crossed.status) == (403, 403)
    assert ledger.state(key) is CallState.DEAD


def test_refusals_are_grouped_by_reason(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """They can be redriven; there is nothing to discard."""
    ledger.set_budget(1_000, org_id="refused")
    key = ledger.rejected("one", org_id="refused")

    listed = ann.get("/dead-letters?show=refused&org=refused")
    group = group_of(ann, "refused", "refused")

    assert "cancelled" in listed.words
    assert key.task_id in group.text
    assert "state=rejected" in group.text
    assert "Discard" not in group.words
    form = group_of(ann, "refused", "refused").text
    assert "expected" not in form


def test_dead_letters_come_page_by_page(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Each once, newest first."""
    keys = {died(ledger, f"{number}", "paged").task_id for number in range(53)}
    first = group_of(ann, "paged")
    older = re.search(r'href="([^"]*)" rel="next"', first.text)
    assert older is not None

    second = ann.get(unescape(older[1]))

    pages = [set(re.findall(r'href="/calls/([^"]*)"', page.text)) for page in (first, second)]
    assert (len(pages[0]), len(pages[1])) == (50, 3)
    assert pages[0] | pages[1] == keys
    assert "Newest" in second.words


def test_names_and_errors_of_others_are_text(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Whatever a provider answered or a tenant is called."""
    failure = replace(RATE_LIMITED, message=HOSTILE)
    died(ledger, "one", HOSTILE, failure, model=HOSTILE, call_type=HOSTILE)

    listed = ann.get("/dead-letters")
    to = re.findall(r'href="(/dead-letters/group[^"]*)"', listed.text)
    seen = [listed, *(ann.get(unescape(path)) for path in to)]

    assert escape(HOSTILE, quote=False)[:12] in listed.text
    for page in seen:
        assert page.status == 200
        assert "<img src=x" not in page.text


def refused_link(ledger: LedgerUnderTest, content: str, org_id: str) -> CallKey:
    """A link that was given up."""
    ledger.set_budget(1_000, org_id=org_id)
    key = ledger.rejected(content, org_id=org_id, link=LINK)
    (delivery,) = ledger.links(keys=[key])
    ledger.ledger.keep_link_outcomes([LinkOutcome(delivery.submission_id, f"no queue {HOSTILE}")])
    return key


def test_links_that_did_not_arrive_are_tried_again(
    pages: PagesUnderTest, ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """Those that are chosen, for a reason; nothing chosen says so, and a viewer may not."""
    key = refused_link(ledger, "one", "links")
    page = ann.get("/dead-letters?show=links&org=links")
    (link,) = re.findall(r'name="link" value="([^"]*)"', page.text)
    button = "Try the chosen ones again"

    assert "<img src=x" not in page.text
    assert key.task_id in page.text
    refused = pages.visitor("vera").send(page.form(button), page.url, link=link, reason=WHY)
    assert refused.status == 403
    nothing = ann.submit(page, button, reason=WHY)
    assert "no link that can be tried again was chosen" in nothing.alerts
    done = ann.submit(ann.get(page.path), button, link=link, reason=WHY)
    assert "1 of 1 links are tried again now." in done.alerts
    assert actions(ledger, "links.retry", "links") == [("ann", WHY, "1 links")]
    assert ledger.ended.given_up_links("links", limit=5) == []


def test_messages_are_shown_without_their_content(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """When, on which queue, why."""
    ledger.operations.keep_unprocessable(
        UnprocessableMessage("callgate.call", f"not JSON {HOSTILE}", b"a secret of a tenant")
    )

    page = ann.get("/dead-letters?show=messages")

    assert "callgate.call" in page.words
    assert "20" in page.words
    assert "<img src=x" not in page.text
    assert "a secret" not in page.text


@pytest.mark.parametrize(
    "query",
    [
        "show=nothing", "period=never", "period=own&from=2026-13-01", "period=own&from=2026-11-02&to=2026-11-01",
        f"org={'x' * 200}", "show=links&at=today", "show=links&at=2026-11-01T00:00:00&id=7", "show=messages&before=x",
    ],
)  # fmt: skip
def test_an_address_that_means_nothing_says_why(ann: Visitor, query: str) -> None:
    """It is the user's mistake, not the server's."""
    page = ann.get(f"/dead-letters?{query}")

    assert page.status == 400
    assert page.alerts


def test_an_empty_list_says_what_would_be_there(ann: Visitor) -> None:
    """In each view."""
    for show in ("dead", "refused"):
        assert "in this time" in ann.get(f"/dead-letters?show={show}&org=nobody").words
    assert "Every link was delivered" in ann.get("/dead-letters?show=links&org=nobody").words
    assert ann.get("/dead-letters/group?show=links&name=x").status == 400
    missing = ann.get("/dead-letters/group?show=dead&name=feed")
    assert (missing.status, "Nothing is left in this group" in missing.words) == (200, True)


def test_all_of_it_is_shown_to_nobody_else(pages: PagesUnderTest, ledger: LedgerUnderTest) -> None:
    """Without a password there is no page."""
    stranger = Visitor(pages.port, None)

    for path in ("/dead-letters", "/dead-letters/group?name=x", "/costs", "/costs.csv", "/leases"):
        assert stranger.get(path).status == 401
    assert ledger.operations.calls(CallFilter(org_id="nobody"), limit=1) == []
