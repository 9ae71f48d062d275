"""The page of one call in a real Flower: what it tells, and what may be done to the call."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape, unescape
from urllib.parse import quote

import pytest

from callgate.domain.call_pages import PageOf
from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.reports import By, CallFilter, EndReason
from callgate.domain.unknown import SettleByHand
from tests.support.ledger_under_test import (
    LINK,
    LedgerUnderTest,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)
from tests.support.operators_pages import PagesUnderTest
from tests.support.visitor import Visitor

NOWHERE = "5ab0c0fa-d044-48cd-93bd-9f16d7a55ffe"
HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;; --"
SECRET = "what the patient said"  # noqa: S105


def searched(words: str) -> str:
    """The path of a search."""
    return f"/calls?q={quote(words)}"


def one(key: CallKey) -> str:
    """The path of a call."""
    return f"/calls/{key.task_id}"


def actions(ledger: LedgerUnderTest, key: CallKey) -> list[tuple[str, str, str]]:
    """What was done to a call, by whom, and why."""
    found = ledger.operations.call_history(key).actions
    return [(a.action, a.by.operator, a.by.reason) for a in found]


def test_one_call_tells_what_happened_to_it(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Its attempts with hold and cost, who joined and what that saved, and who was told."""
    ledger.set_budget(10**12, org_id="told")
    first, second = (a_submission("x", org_id="told", link=LINK) for _ in range(2))
    key = ledger.submit(first, second)[0].key
    (claimed,) = ledger.reserve(a_reserve(key, 900_000_000, trace_id="trace-7"))
    ledger.record(an_answer(claimed.ref))  # type: ignore[union-attr]
    ledger.settle(a_success(claimed.ref, 250_000_000))  # type: ignore[union-attr]
    ledger.ledger.keep_link_outcomes(
        [LinkOutcome(first.submission_id), LinkOutcome(second.submission_id, "too large")]
    )

    page = ann.get(one(key))

    for word in ("succeeded", "$0.90", "$0.25", "2 times, 1 without a call of their own", "Joined",
                 "trace-7", "req-1", "40 ms", "given up", "too large", "Told : 1 link published",
                 "Nothing: it has its answer"):  # fmt: skip
        assert word in page.words, word
    assert "Cancel the call" not in page.words


def test_why_it_waits_and_what_comes_next(ledger: LedgerUnderTest, ann: Visitor) -> None:
    ledger.set_budget(1_000, org_id="held")
    ledger.running("first", 900, org_id="held")
    key = ledger.queued("second", org_id="held")
    ledger.reserve(replace(a_reserve(key, 900), wait_max_s=600.0))

    page = ann.get(one(key))

    assert ledger.state(key) is CallState.WAITING
    for word in ("budget_held", "Calls in flight hold the money", "0 calls of its organisation"):
        assert word in page.words, word


def test_a_call_id_leads_to_its_newest_generation(ledger: LedgerUnderTest, ann: Visitor) -> None:
    ledger.set_budget(1_000, org_id="twice")
    first = ledger.dead("again", org_id="twice").key
    second = ledger.queued("again", org_id="twice", force=True)

    assert ann.get(f"/calls/{first.call_id}").path == one(second)
    before = ann.get(one(first)).words
    assert "A later generation replaced this one" in before
    assert f"Nothing: it has a later generation, {second.task_id}" in before


def test_a_bill_that_was_settled_by_hand_is_not_unknown(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """The timeline claims no more that it was settled with what it posts now."""
    ledger.set_budget(10**10, org_id="back")
    ref = ledger.lost("sent into the dark", org_id="back")
    assert "posted with the whole hold" in ann.get(one(ref.key)).words

    seen = ledger.view(ref).posted_nano_usd
    bill = SettleByHand(ref.attempt_id, seen, 0)
    ledger.operations.settle_by_hand([bill], by=By("ann", "they billed nothing"))

    after = ann.get(one(ref.key)).words
    assert "Settled by hand : attempt 1 now posts $0.00" in after
    assert "posted with the whole hold" not in after


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        (f"{NOWHERE}.1", 404, "This ledger has no call"),
        (NOWHERE, 404, "This ledger has no call"),
        ("not-an-id", 400, "is neither a task id"),
        (quote(HOSTILE, safe=""), 400, "is neither a task id"),
        (f"{NOWHERE}.99999999999", 400, "is neither a task id"),
    ],
)
def test_an_unknown_call_gets_a_page_that_helps(
    ann: Visitor, name: str, status: int, said: str
) -> None:
    page = ann.get(f"/calls/{name}")

    assert page.status == status
    assert said in page.words
    assert "<img src=x" not in page.text
    assert page.form("Search").action == "/calls"


@pytest.mark.parametrize("state", ["dead", "rejected"])
def test_one_call_is_redriven_by_a_stored_operation(
    ledger: LedgerUnderTest, ann: Visitor, state: str
) -> None:
    """The plan is filled in; a call that succeeded, and one with a later generation, offers none."""
    ledger.set_budget(1_000, org_id="redrives")
    made = getattr(ledger, state)(f"again {state}", org_id="redrives")
    key = made if isinstance(made, CallKey) else made.key
    (to,) = re.findall(r'href="([^"]*/redrives/new[^"]*)"', ann.get(one(key)).text)

    planned = ann.submit(ann.get(unescape(to)), "Plan", state=state, reason="ticket 7")

    assert planned.alerts == "Planned: 1 calls. Nothing is released yet."
    assert key.task_id in planned.text
    ledger.queued(f"again {state}", org_id="redrives", force=True)
    assert "/redrives/new" not in ann.get(one(key)).text
    assert "/redrives/new" not in ann.get(one(ledger.succeeded(state, org_id="redrives").key)).text


def test_an_operator_cancels_and_that_is_logged(
    ledger: LedgerUnderTest, ann: Visitor, pages: PagesUnderTest
) -> None:
    """Sent twice it is done once; of two operators one does it; what runs is not cancelled."""
    key = ledger.queued("cancelled", org_id="cancels")
    page, of_ben = ann.get(one(key)), pages.visitor("ben")
    stale = of_ben.get(one(key))

    done = ann.submit(page, "Cancel the call", reason="a typo")
    again = ann.submit(page, "Cancel the call", reason="a typo")
    late = of_ben.submit(stale, "Cancel the call", reason="me too")

    assert done.alerts == "Cancelled."
    assert done.path == one(key)
    assert "sent before" in again.alerts
    assert "Not cancelled: it is rejected by now" in late.alerts
    assert ledger.view(key).end_reason == "cancelled"
    assert actions(ledger, key) == [("call.cancel", "ann", "a typo")]
    assert "call.cancel by ann: a typo" in ann.get(one(key)).words


def test_without_a_reason_nothing_is_cancelled(ledger: LedgerUnderTest, ann: Visitor) -> None:
    key = ledger.queued("kept", org_id="cancels")

    page = ann.submit(ann.get(one(key)), "Cancel the call", reason=" ")

    assert "say why" in page.alerts
    assert ledger.state(key) is CallState.QUEUED


@pytest.mark.parametrize("name", ["vera", "rita"])
def test_who_is_no_operator_cancels_nothing(
    ledger: LedgerUnderTest, ann: Visitor, pages: PagesUnderTest, name: str
) -> None:
    """Nor with an operator's form."""
    key = ledger.queued(f"safe from {name}", org_id="cancels")
    visitor = pages.visitor(name)
    own = visitor.get(one(key)).form("Cancel the call")

    assert not own.is_enabled
    assert visitor.send(own, reason="I want to").status == 403
    assert visitor.send(ann.get(one(key)).form("Cancel the call"), reason="hm").status == 403
    assert ledger.state(key) is CallState.QUEUED


def test_a_body_is_shown_to_its_reader_and_that_is_logged(
    ledger: LedgerUnderTest, rita: Visitor
) -> None:
    """The request, or the reply of an attempt; once for each form."""
    ledger.set_budget(1_000, org_id="bodies")
    ref = ledger.succeeded(SECRET, org_id="bodies")
    page = rita.get(one(ref.key))

    request = rita.submit(page, "Show", reason="ticket 7", which="request")
    again = rita.submit(page, "Show", reason="ticket 7", which="request")
    reply = rita.submit(again, "Show", reason="ticket 8", which=str(ref.attempt_id))

    assert SECRET not in page.text
    assert SECRET in request.words
    assert SECRET not in again.text
    assert "sent before" in again.alerts
    assert "gpt-4o-mini" in unescape(re.findall(r"<pre[^>]*>(.*?)</pre>", reply.text, re.DOTALL)[0])
    assert actions(ledger, ref.key) == [
        ("body.show", "rita", "ticket 8"),
        ("body.show", "rita", "ticket 7"),
    ]
    assert SECRET not in rita.get(one(ref.key)).text


@pytest.mark.parametrize("name", ["vera", "ann"])
def test_who_is_no_reader_sees_no_body(
    ledger: LedgerUnderTest, rita: Visitor, pages: PagesUnderTest, name: str
) -> None:
    """An operator neither."""
    ledger.set_budget(1_000, org_id="bodies")
    ref = ledger.succeeded(f"{SECRET} to {name}", org_id="bodies")
    visitor = pages.visitor(name)

    own = visitor.send(visitor.get(one(ref.key)).form("Show"), reason="I want to", which="request")
    stolen = visitor.send(rita.get(one(ref.key)).form("Show"), reason="hm", which="request")

    assert (own.status, stolen.status) == (403, 403)
    assert SECRET not in own.text + stolen.text
    assert actions(ledger, ref.key) == []


def test_a_purged_body_says_that_it_was_purged(ledger: LedgerUnderTest, rita: Visitor) -> None:
    key = ledger.queued("purged", org_id="purges")
    assert ledger.operations.end([key], code=EndReason.CANCELLED, message="x") == [key]
    assert ledger.purge().calls >= 1
    page = rita.get(one(key))

    shown = rita.submit(page, "Show", reason="ticket 9", which="request")

    assert "purged" in page.words
    assert "It was purged: retention has removed it" in shown.words


@pytest.mark.parametrize("which", [NOWHERE, "", HOSTILE])
def test_a_body_that_does_not_exist_is_no_error_of_ours(
    ledger: LedgerUnderTest, rita: Visitor, which: str
) -> None:
    key = ledger.queued("bodiless", org_id="bodies")

    page = rita.submit(rita.get(one(key)), "Show", reason="ticket 9", which=which)

    assert page.status in (200, 400)
    assert "<img src=x" not in page.text


def test_a_form_that_does_not_say_what_to_do_does_nothing(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    key = ledger.queued("undone", org_id="cancels")
    form = ann.get(one(key)).form("Cancel the call")

    assert ann.send(form, reason="x", do="explode").status == 400
    assert ann.send(form, reason="x", _xsrf="forged").status == 403
    assert ledger.state(key) is CallState.QUEUED


def test_what_clients_and_providers_wrote_is_text(
    ledger: LedgerUnderTest, ann: Visitor, rita: Visitor
) -> None:
    """Names, errors, keys, links' failures and bodies are escaped, in the list and on the page of the call."""
    org, error = f"hostile {HOSTILE}", json.dumps({"code": HOSTILE, "message": HOSTILE})
    ledger.set_budget(10**9, org_id=org)
    submission = a_submission(
        HOSTILE, org_id=org, model=HOSTILE, provider=HOSTILE, call_type=HOSTILE, link=LINK,
        idempotency_key=HOSTILE, request=json.dumps({"messages": [HOSTILE]}).encode(),
    )  # fmt: skip
    key = ledger.submit(submission)[0].key
    ref = ledger.claim(key)
    ledger.record(an_answer(ref, error=error, provider_request_id=HOSTILE))
    ledger.settle(a_success(ref, price_source=HOSTILE, service_tier=HOSTILE))
    ledger.ledger.keep_link_outcomes([LinkOutcome(submission.submission_id, HOSTILE)])
    (listed,) = ledger.operations.call_page(CallFilter(org), PageOf()).views

    seen = [
        ann.get(searched(f'org:"{org}"'.replace("'\"&", "'\\\"&"))),
        ann.get(one(listed.key)),
        rita.submit(rita.get(one(key)), "Show", reason=HOSTILE, which="request"),
        ann.get("/calls/scope?q=" + quote(f'model:"{HOSTILE}"'.replace("'\"&", "'\\\"&"))),
    ]

    for page in seen:
        assert page.status == 200
        assert "<img src=x" not in page.text
        assert escape(HOSTILE, quote=False).split("&#x27;")[0].split("'")[0] in page.text
