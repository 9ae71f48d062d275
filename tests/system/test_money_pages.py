"""Budgets, pauses, breakers and unknown bills in a browser: every flow is clicked through, at a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.requests import OnBudget
from tests.acceptance.conftest import provider, standing
from tests.contract.money_steps import refused
from tests.support.deployment import Deployment
from tests.support.ledger_under_test import DAY_S, LedgerUnderTest, a_loss
from tests.support.operators_pages import PASSWORDS, PagesUnderTest, the_pages
from tests.support.pages import OpenPage, a_chromium, a_page

__all__ = ["provider", "standing"]

USD = NANO_PER_USD
HTML = "<img src=x onerror=document.title='ran'>"
ONE = "/budgets/one?org=acme&scope=org&window=day"
PATHS = {
    "budgets": "/budgets",
    "by name": "/budgets?order=name",
    "an organisation": "/budgets?org=acme",
    "a hostile one": "/budgets?" + urlencode({"org": HTML}),
    "a budget": ONE,
    "a preview": ONE + "&limit=20",
    "a new budget": "/budgets/one?org=nobody&window=month",
    "pauses": "/pauses",
    "a pause": "/pauses?look=1&call_type=summary",
    "limits": "/limits",
    "a breaker": "/limits/breaker?provider=openai&model=o9",
    "unknown bills": "/unknown",
    "none": "/unknown?org=nobody",
    "a file": "/unknown/csv",
}


def given_up(ledger: LedgerUnderTest, content: str, **changes: str) -> AttemptRef:
    """A call that is dead because nobody knows what became of its request: $1 is posted."""
    ref = ledger.running(content, USD, **changes)
    assert ledger.settle(a_loss(ref, USD, next_state=CallState.DEAD))[0].is_applied
    return ref


@pytest.fixture(scope="module")
def pages(standing: Deployment) -> Iterator[PagesUnderTest]:
    """Flower over a ledger with a bit of everything, and hostile names."""
    with the_pages(standing) as pages:
        ledger = pages.ledger
        for org_id in ("acme", "bolt", HTML):
            ledger.set_budget(10 * USD, org_id=org_id)
        ledger.succeeded("yesterday", 2 * USD, hold_nano_usd=2 * USD)
        ledger.age(DAY_S)
        ledger.succeeded("today", 3 * USD, hold_nano_usd=3 * USD)
        ledger.running("in flight", USD)
        refused(ledger, ledger.queued("waits", org_id="acme"), 8 * USD, OnBudget.WAIT)
        given_up(ledger, "lost", org_id=HTML, model=HTML, call_type=HTML)
        by = By("ben", HTML)
        ledger.operations.pause(PauseKey(call_type="dreams"), by=by)
        ledger.operations.set_breaker("openai", "o9", "", is_open=True, by=by)
        yield pages


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with a_chromium() as browser:
        yield browser


@pytest.fixture
def ann(browser: Browser, pages: PagesUnderTest) -> Iterator[OpenPage]:
    """The operator's page."""
    expect.set_options(timeout=20_000)
    with a_page(browser, pages.flower, PASSWORDS["ann"]) as page:
        yield page


def says(page: OpenPage, text: str) -> None:
    """Check what the page says after a change."""
    expect(page.page.locator("[role=alert]")).to_contain_text(text)
    page.page.wait_for_load_state("load")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PATHS)
def test_every_page_is_in_order(
    browser: Browser,
    pages: PagesUnderTest,
    tmp_path: Path,
    name: str,
    scheme: Literal["light", "dark"],
) -> None:
    """For axe, in the console, and at 400 pixels; no name in the ledger is run."""
    with a_page(browser, pages.flower, PASSWORDS["ann"], scheme) as page:
        page.open(PATHS[name])
        page.check(f"{scheme} {name}", tmp_path)
        assert page.page.title().endswith("callgate")
        assert page.page.locator("main img").count() == 0


def test_a_limit_is_raised(pages: PagesUnderTest, ann: OpenPage) -> None:
    """From the list to the message: what it lets run is seen first."""
    ann.open("/budgets")
    ann.page.get_by_role("link", name="all calls, per day of acme").first.click()
    expect(ann.page.locator("h1")).to_have_text("acme, all calls, per day")
    ann.page.get_by_label("Limit per day, USD").fill("25")
    ann.page.get_by_role("button", name="See what it changes").click()
    expect(ann.page.locator("#preview")).to_contain_text("$10.00 → $25.00")
    expect(ann.page.locator("#preview")).to_contain_text("1 of them would run")
    ann.page.get_by_label("Reason, for the action log").fill("a larger month")
    ann.page.get_by_role("button", name="Set the limit to $25.00").click()

    says(ann, "is $25.00; it was $10.00")
    ann.check()
    found = next(a for a in pages.ledger.operations.actions(limit=9) if a.action == "budget.set")
    assert found.by == By("ann", "a larger month")


def test_a_runaway_is_stopped_by_keyboard(pages: PagesUnderTest, ann: OpenPage) -> None:
    """With Tab and Enter, and pressed twice: it is frozen once."""
    ann.open("/budgets?org=bolt")
    for _ in range(60):
        ann.page.keyboard.press("Tab")
        if ann.page.evaluate("document.activeElement.id") == "reason-freeze":
            break
    ann.page.keyboard.type("it runs away")
    ann.page.keyboard.press("Tab")
    ann.page.keyboard.press("Enter")

    says(ann, "Frozen: organisation bolt.")
    expect(ann.page.get_by_text("Frozen by ann at")).to_be_visible()
    assert [p.by for p in pages.ledger.operations.pauses() if p.key.is_freeze] == [
        By("ann", "it runs away")
    ]
    ann.check()
    ann.page.get_by_label("Reason, for the action log").fill("it is well")
    ann.page.get_by_role("button", name="Unfreeze").dblclick()
    expect(ann.page.get_by_role("heading", name="Freeze bolt")).to_be_visible()
    actions = [a.action for a in pages.ledger.operations.actions(limit=50)]
    assert [action for action in actions if "freeze" in action] == ["unfreeze", "freeze"]


def test_calls_are_paused_and_resumed(pages: PagesUnderTest, ann: OpenPage) -> None:
    """What it concerns is seen first."""
    ann.open("/limits")
    ann.page.get_by_role("link", name="Pauses and freezes").click()
    ann.page.get_by_label("Call type").fill("extraction")
    ann.page.get_by_role("button", name="See what it concerns").click()
    expect(ann.page.locator("#concerned")).to_contain_text("In flight1")
    ann.page.locator("#concerned").get_by_label("Reason").fill("a bad prompt")
    ann.page.get_by_role("button", name="Pause", exact=True).click()
    says(ann, "Paused: call type extraction.")
    ann.check()

    row = ann.page.get_by_role("row", name="call type extraction")
    row.get_by_text("Resume").first.click()
    row.get_by_label("Reason").fill("a better prompt")
    row.get_by_role("button", name="Resume").click()
    says(ann, "Resumed: call type extraction.")
    assert [p.key for p in pages.ledger.operations.pauses()] == [PauseKey(call_type="dreams")]


def test_a_breaker_is_closed_and_opened(pages: PagesUnderTest, ann: OpenPage) -> None:
    """From the list of limits."""
    for link, button, said in (("Close", "Close", "Closed"), ("Open", "Open", "Open")):
        ann.open("/limits?model=o9")
        ann.page.get_by_role("link", name=f"{link} the breaker of openai/o9").click()
        ann.page.get_by_label("Reason, for the action log").fill("it answers, or not")
        ann.page.get_by_role("button", name=button, exact=True).click()
        says(ann, f"{said}: openai/o9.")
        ann.check()


def test_bills_are_settled_one_by_one_and_together(pages: PagesUnderTest, ann: OpenPage) -> None:
    """One with an amount; then all of the page are ticked and given back."""
    for n in range(3):
        given_up(pages.ledger, f"lost {n}", org_id="bolt")
    ann.open("/unknown?org=bolt")
    ann.page.get_by_role("link", name="Settle attempt").first.click()
    ann.page.get_by_label("Billed, USD").fill("0.4")
    ann.page.get_by_label("Reason, for the action log").fill("invoice 7")
    ann.page.get_by_role("button", name="Settle").click()
    says(ann, "1 settled; $0.600000 given back.")
    ann.check()

    ann.open("/unknown?org=bolt")
    ann.page.get_by_label("Tick all of this page").check()
    ann.page.get_by_label("Reason, for the action log").fill("the provider is dead")
    ann.page.get_by_role("button", name="Give back the ticked ones").click()
    says(ann, "2 settled; $2.000000 given back.")
    expect(ann.page.get_by_text("Every bill is known.")).to_be_visible()
    ann.check()


def test_bills_are_settled_from_the_file_that_was_filled_in(
    pages: PagesUnderTest, ann: OpenPage, tmp_path: Path
) -> None:
    """Downloaded, filled in, chosen, tried, settled."""
    for n in range(2):
        given_up(pages.ledger, f"filed {n}", org_id="bolt")
    ann.open("/unknown?org=bolt")
    with ann.page.expect_download() as download:
        ann.page.get_by_role("link", name="Download these as CSV").click()
    file = tmp_path / "bills.csv"
    download.value.save_as(file)
    head, *rows = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([head, *(row + "0.25" for row in rows)]), "utf-8")

    ann.page.get_by_role("link", name="Settle from a CSV file").click()
    ann.page.get_by_label("File").set_input_files(file)
    ann.page.get_by_role("button", name="See what it would do").click()
    expect(ann.page.get_by_role("status")).to_contain_text("2 settled; $1.500000 given back.")
    ann.check()
    ann.page.get_by_label("Reason, for the action log").fill("invoice 8")
    ann.page.get_by_role("button", name="Settle them").click()
    says(ann, "2 settled; $1.500000 given back.")
    expect(ann.page.locator("tbody tr")).to_have_count(2)
    ann.check()


def test_a_viewer_sees_why_nothing_can_be_changed(browser: Browser, pages: PagesUnderTest) -> None:
    """On each page with a form."""
    with a_page(browser, pages.flower, PASSWORDS["vera"]) as page:
        for path, button in (
            (ONE + "&limit=20", "Set the limit to $20.00"),
            ("/budgets?org=acme", "Freeze"),
            ("/pauses?look=1&org=acme", "Pause"),
            ("/limits/breaker?provider=openai&model=o9", "Close"),
            ("/unknown", "Give back the ticked ones"),
            ("/unknown/csv", "See what it would do"),
        ):
            page.open(path)
            named = page.page.get_by_role("button", name=button, exact=True)
            expect(named.last).to_be_disabled()
            expect(page.page.get_by_text("vera has no role operator").last).to_be_visible()
            page.check()
