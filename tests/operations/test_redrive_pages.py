"""Pages of redrives in a real Flower: from a group of dead letters to a plan, its start and its outcomes."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from uuid import UUID

import pytest

from callgate.domain.calls import CallKey, CallState
from callgate.domain.redrives import PricedCall, RedriveState, StartRedrive
from tests.contract.redrive_steps import ANN, get, outcomes, redrives_of, released, take
from tests.support.ledger_under_test import LedgerUnderTest, a_failure, a_loss, a_success, an_answer
from tests.support.operators_pages import PagesUnderTest
from tests.support.visitor import Seen, Visitor

HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;; --"
WHY = "the provider is repaired"
USD = 10**9
TERMS: dict[str, Any] = {"stop_percent": "50", "stop_min": "20"}


@pytest.fixture
def ledger(pages: PagesUnderTest) -> LedgerUnderTest:
    """What they show. Redrives of other tests are over."""
    for redrive in redrives_of(pages.ledger).newest(limit=100):
        if redrive.state in (RedriveState.PLANNING, RedriveState.PLANNED, RedriveState.RUNNING):
            redrives_of(pages.ledger).abort(redrive.redrive_id, ANN)
    return pages.ledger


def died(ledger: LedgerUnderTest, org_id: str, *contents: str, **of: str) -> dict[CallKey, str]:
    """Calls that died."""
    ledger.set_budget(1_000 * USD, org_id=org_id)
    found = {}
    for content in contents:
        ref = ledger.answered(f"{content} of {org_id}", org_id=org_id, **of)
        ledger.settle(a_failure(ref))
        found[ref.key] = f"{content} of {org_id}"
    return found


def plan(ann: Visitor, org_id: str, **chosen: Any) -> Seen:
    """Plan a redrive of an organisation in the form."""
    form = ann.get(f"/redrives/new?org={org_id}")
    return ann.submit(form, "Plan", reason=WHY, **chosen)


def price(ledger: LedgerUnderTest, worst: int = USD) -> None:
    """What a worker does next for the newest plan."""
    step = take(ledger)
    assert step is not None
    assert step.state is RedriveState.PLANNING
    redrives_of(ledger).price(step, [PricedCall(n, worst, 10, 5) for n, _ in step.calls])


def id_of(page: Seen) -> UUID:
    """Which redrive a page shows."""
    found = re.search(r"/redrives/([0-9a-f-]{36})", page.path)
    assert found is not None, page.path
    return UUID(found[1])


def test_a_group_is_redriven_from_its_page_to_its_end(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """Three clicks, two reasons and a count; the price is there before, the outcome of each call after."""
    contents = died(ledger, "whole", "one", "two")
    listed = ann.get("/dead-letters?org=whole")
    (group,) = set(re.findall(r'href="(/dead-letters/group[^"]*)"', listed.text))
    (to,) = set(re.findall(r'href="(/redrives/new[^"]*)"', ann.get(unescape(group)).text))

    planned = ann.submit(ann.get(unescape(to)), "Plan", reason=WHY)
    assert "Planned: 2 calls. Nothing is released yet." in planned.alerts
    assert "Workers are pricing the calls: 0 of 2" in planned.words
    price(ledger)
    seen = ann.get(f"/redrives/{id_of(planned)}")
    assert "Worst case of the pending $2.00" in seen.words
    assert "Nothing would be refused, and nothing would wait." in seen.words

    wrong = ann.submit(seen, "Start", reason=WHY, expected="3", **TERMS)
    assert "Nothing was changed: you expect 3, and 2 match" in wrong.alerts
    begun = ann.submit(wrong, "Start", reason=WHY, expected="2", cap="2.5", **TERMS)
    assert "Started: 2 calls." in begun.alerts
    assert "Cap $2.50" in begun.words
    good, bad = released(ledger, contents)
    for answer, ends in ((good, a_success), (bad, a_failure)):
        ref = ledger.claim(answer.key)
        ledger.record(an_answer(ref))
        ledger.settle(ends(ref))
    ledger.age(2)
    take(ledger)

    done = ann.get(f"/redrives/{id_of(planned)}").words
    for words in ("Done", "Succeeded 1", "Failed again 1", "rate_limited", "generation 2"):
        assert words in done, words
    failed = ann.get(f"/redrives/{id_of(planned)}?outcome=failed")
    assert good.key.call_id.hex not in failed.text.replace("-", "")
    assert bad.key.task_id in failed.text
    assert "whole" in ann.get("/redrives").words
    actions = [(a.by.operator, a.action) for a in ledger.operations.actions(limit=2)]
    assert actions == [("ann", "redrive.start"), ("ann", "redrive.plan")]
    assert f'href="/redrives/{id_of(planned)}"' in ann.get("/actions").text


def test_a_plan_says_what_would_be_refused_and_paid_twice(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """And starts only with a consent of its own."""
    died(ledger, "twice", "one")
    ledger.settle(
        a_loss(ledger.running("lost", org_id="twice"), next_state=CallState.DEAD, due_in_s=None)
    )
    ledger.set_budget(USD - 1, org_id="twice")
    planned = plan(ann, "twice")
    price(ledger)

    seen = ann.get(f"/redrives/{id_of(planned)}")
    assert "2 would be refused: budget_too_small" in seen.words
    assert "1 may be paid a second time" in seen.words
    refused = ann.submit(seen, "Start", reason=WHY, expected="2", **TERMS)
    assert "may be paid twice" in refused.alerts
    begun = ann.submit(refused, "Start", reason=WHY, expected="1", unknown_bills="skip", **TERMS)
    assert "Started: 1 calls." in begun.alerts
    assert [o.value for o, _ in outcomes(ledger, id_of(planned))].count("skipped") == 1


def test_it_is_paused_resumed_and_aborted(ledger: LedgerUnderTest, ann: Visitor) -> None:
    died(ledger, "changed", "one", "two")
    planned = plan(ann, "changed")
    price(ledger)
    redrive_id = id_of(planned)
    seen = ann.get(f"/redrives/{redrive_id}")
    ann.submit(seen, "Start", reason=WHY, expected="2", rate="1", **TERMS)

    paused = ann.submit(ann.get(f"/redrives/{redrive_id}"), "Pause the redrive", reason="lunch")
    assert "Paused: an operator paused it" in paused.words
    resumed = ann.submit(paused, "Resume", reason="go on", rate="30")
    assert "Rate 30 a minute" in resumed.words
    aborted = ann.submit(resumed, "Abort", reason="wrong calls")
    assert "Aborted." in aborted.alerts
    assert get(ledger, redrive_id).counts.left == 2
    assert "Abort it" not in aborted.words


def test_two_operators_and_a_form_that_is_sent_twice(
    pages: PagesUnderTest, ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """It is started once; who comes later is told."""
    died(ledger, "both", "one")
    form = ann.get("/redrives/new?org=both").form("Plan")
    first = ann.send(form, reason=WHY)
    again = ann.send(form, reason=WHY)
    assert "sent before" in again.alerts
    assert id_of(first) == id_of(again)
    price(ledger)
    ben = pages.visitor("ben")
    hers, his = (who.get(f"/redrives/{id_of(first)}") for who in (ann, ben))

    assert "Started" in ann.submit(hers, "Start", reason=WHY, expected="1", **TERMS).alerts
    late = ben.submit(his, "Start", reason=WHY, expected="1", **TERMS)

    assert "is running, not planned" in late.alerts
    started = [a for a in ledger.operations.actions(limit=9) if a.action == "redrive.start"]
    assert [a.by.operator for a in started if str(id_of(first)) in a.subject] == ["ann"]


def test_a_viewer_sees_and_changes_nothing(pages: PagesUnderTest, ledger: LedgerUnderTest) -> None:
    contents = died(ledger, "viewed", "one")
    planned = plan(pages.visitor("ann"), "viewed")
    price(ledger)
    vera = pages.visitor("vera")

    seen = vera.get(f"/redrives/{id_of(planned)}")
    assert not seen.form("Start").is_enabled
    hers = pages.visitor("ann").get(f"/redrives/{id_of(planned)}").form("Start")
    for form in (hers, seen.form("Start")):
        answered = vera.send(form, reason=WHY, expected="1", **TERMS)
        assert answered.status == 403
    assert get(ledger, id_of(planned)).state is RedriveState.PLANNED
    assert ledger.count_calls() >= len(contents)


def test_names_that_would_run_are_shown(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Models, call types and codes come from others."""
    died(ledger, "hostile", "one", model=HOSTILE, call_type=HOSTILE)
    planned = plan(ann, "hostile", model=HOSTILE)
    step = take(ledger)
    assert step is not None
    redrives_of(ledger).price(step, [PricedCall(1, refusal=HOSTILE)])

    for page in (ann.get(f"/redrives/{id_of(planned)}"), ann.get("/redrives")):
        assert "<img src=x" not in page.text
        assert HOSTILE in page.words or page.path == "/redrives"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"org": "nobody"}, "no such call is dead or refused"),
        ({"state": "queued"}, "neither dead nor rejected"),
        ({"since": "yesterday"}, "is no time"),
        ({"ids": "x"}, "not all ids"),
        ({"max": "0"}, "type a number"),
        ({"max": "99999999999"}, "type a number"),
        ({"id": "x"}, "not the id of a redrive"),
    ],
)
def test_what_cannot_be_planned_is_said(
    ledger: LedgerUnderTest, ann: Visitor, fields: dict[str, Any], told: str
) -> None:
    """And the form keeps what was typed."""
    answered = ann.submit(ann.get("/redrives/new?org=acme"), "Plan", reason=WHY, **fields)

    assert told in answered.words + answered.alerts
    if fields == {"org": "nobody"}:
        assert answered.form("Plan").fields["org"] == "nobody"


@pytest.mark.parametrize(
    "fields",
    [
        {"rate": "fast"},
        {"rate": "nan"},
        {"rate": "-1"},
        {"cap": "much"},
        {"stop_percent": "0"},
        {"stop_percent": "101"},
        {"stop_min": "0"},
        {"expected": "-1"},
        {"unknown_bills": "x"},
    ],
)
def test_what_cannot_be_started_is_said(
    ledger: LedgerUnderTest, ann: Visitor, fields: dict[str, Any]
) -> None:
    (case,) = fields.items()
    org_id = "strict-{}-{}".format(*case)
    died(ledger, org_id, "one")
    planned = plan(ann, org_id)
    price(ledger)
    seen = ann.get(f"/redrives/{id_of(planned)}")

    answered = ann.submit(seen, "Start", reason=WHY, **{"expected": "1", **TERMS, **fields})

    assert answered.status == 400
    assert get(ledger, id_of(planned)).state is RedriveState.PLANNED


def test_other_addresses_are_refused(pages: PagesUnderTest, ann: Visitor) -> None:
    """An id of nobody leads to the form; what is no id or no outcome is an error."""
    nobody = "00000000-0000-4000-8000-000000000000"

    assert ann.get(f"/redrives/{nobody}").path == "/redrives/new"
    assert ann.get("/redrives/" + "a" * 36).status == 400
    assert ann.get("/redrives/7").status == 404
    assert StartRedrive(UUID(nobody), 1, ANN).expected_calls == 1
