"""All of callgate's pages side by side in a browser: one look, at a desk and on a phone; and two operators at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from callgate.domain.calls import CallKey
from callgate.domain.requests import OnBudget
from tests.acceptance.conftest import provider, standing
from tests.contract.money_steps import refused
from tests.contract.redrive_steps import planned, redrives_of
from tests.support.deployment import Deployment
from tests.support.flower import a_flower
from tests.support.flower_forms import LOGGED_IN, LOGINS
from tests.support.ledger_under_test import RATE_LIMITED, LedgerUnderTest
from tests.support.operators_pages import PASSWORDS, PagesUnderTest, the_pages
from tests.support.pages import OpenPage, a_chromium, a_page
from tests.system.test_report_pages import USD, fill

__all__ = ["provider", "standing"]

WHY = "ticket 7"
LONG = "zephyr-insurance-holding-international-and-its-subsidiaries"
BUDGET = "/budgets/one?" + urlencode({"org": LONG, "scope": "org", "window": "day"})
BREAKER = "/limits/breaker?provider=sim&model=o9"
REDRIVE, DEAD = "a redrive", "a dead call"
GROUP = "/dead-letters/group?name=" + RATE_LIMITED.fingerprint("openai")
PATHS = (
    *("/overview", "/calls", "/calls?q=colour%3Ared", "/calls?q=org%3Anobody", "/calls/not-an-id", DEAD),
    *("/dead-letters", "/dead-letters?show=refused", "/dead-letters?show=links", "/dead-letters?show=messages", GROUP),
    *("/redrives", "/redrives/new", REDRIVE, "/budgets", f"/budgets?org={LONG}", BUDGET, f"{BUDGET}&limit=20"),
    *("/pauses", "/pauses?look=1&call_type=summary", "/limits", BREAKER, "/unknown", "/unknown?org=nobody"),
    *("/unknown/csv", "/costs", "/costs?org=nobody", "/leases", "/actions", "/no-such-page"),
)  # fmt: skip
LOOK = """() => {
  const wrong = [], told = (what, e) => wrong.push(what + ': ' + e.outerHTML.slice(0, 120));
  const left = e => {
    const range = document.createRange();
    range.selectNodeContents(e);
    return (e.matches('.btn') ? e : range).getBoundingClientRect().left;
  };
  if (document.scrollingElement.scrollWidth > innerWidth) wrong.push('wider than the window');
  if (document.querySelectorAll('h1').length !== 1) wrong.push('not one heading');
  document.querySelectorAll('main h2').forEach(e => {
    if (getComputedStyle(e).fontSize !== '16px') told('size', e);
  });
  document.querySelectorAll('.cg-card').forEach(card => {
    const edge = card.getBoundingClientRect().left + 17, check = e => {
      if (Math.abs(left(e) - edge) > 2) told('not in line by ' + (left(e) - edge), e);
    };
    card.querySelectorAll(['h2', 'p', 'form > h2', 'dl', 'a.btn'].map(s => ':scope > ' + s)).forEach(check);
    const cell = card.querySelector('thead th:first-child:not(.cg-tick):not(.text-end)');
    if (cell && cell.textContent) check(cell);
  });
  document.querySelectorAll('.metric-card').forEach(card => {
    const [label, value] = ['label', 'value'].map(s => card.querySelector('.metric-' + s).getBoundingClientRect());
    if (value.top < label.bottom - 1) told('beside its label', card);
  });
  return wrong;
}"""
"""What is out of line on a page: texts of a card that do not begin at its margin, headings of another size."""


@pytest.fixture(scope="module")
def pages(standing: Deployment) -> Iterator[PagesUnderTest]:
    """Flower over a ledger with something on each page."""
    with the_pages(standing) as pages:
        fill(pages.ledger)
        pages.ledger.set_budget(5 * USD, org_id=LONG)
        refused(pages.ledger, too_dear(pages.ledger), 6 * USD, OnBudget.REJECT)
        yield pages


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    expect.set_options(timeout=20_000)
    with a_chromium() as browser:
        yield browser


@pytest.fixture
def ann(browser: Browser, pages: PagesUnderTest) -> Iterator[OpenPage]:
    """An operator's page."""
    with a_page(browser, pages.flower, PASSWORDS["ann"]) as page:
        yield page


@pytest.fixture
def ben(browser: Browser, pages: PagesUnderTest) -> Iterator[OpenPage]:
    """Another operator's."""
    with a_page(browser, pages.flower, PASSWORDS["ben"]) as page:
        yield page


def too_dear(ledger: LedgerUnderTest) -> CallKey:
    """A call that no budget of its organisation can pay."""
    return ledger.queued("too dear", org_id=LONG)


def send(page: Page, button: str) -> None:
    """Give a reason, and press."""
    form = page.locator("form", has=page.get_by_role("button", name=button, exact=True)).last
    form.get_by_label("Reason, for the action log").fill(WHY)
    form.get_by_role("button", name=button, exact=True).click()


def test_all_pages_look_alike(pages: PagesUnderTest, ann: OpenPage) -> None:
    """At a desk and at 400 pixels: nothing is wider than the window, and what is in a card begins at one margin."""
    seen = planned(pages.ledger)
    (dead, *_) = redrives_of(pages.ledger).calls_of(seen.redrive_id, limit=1)
    named = {REDRIVE: f"/redrives/{seen.redrive_id}", DEAD: f"/calls/{dead.key.task_id}"}
    found: dict[str, Any] = {}
    for path in PATHS:
        ann.open(named.get(path, path))
        for width in (1_280, 400):
            ann.page.set_viewport_size({"width": width, "height": 900})
            if wrong := ann.page.evaluate(LOOK):
                found[f"{path} at {width}"] = wrong
    assert found == {}, json.dumps(found, indent=1)


def test_a_refusal_is_told_in_words(ann: OpenPage) -> None:
    """Not as the ledger stores it."""
    ann.open("/dead-letters?show=refused")
    expect(ann.page.locator("main")).to_contain_text("the call may cost $6.000000")
    assert "requested_nano_usd" not in ann.page.locator("main").inner_text()


def test_a_redrive_that_is_done_is_no_alarm(pages: PagesUnderTest, ann: OpenPage) -> None:
    """The colour of a full budget is for budgets."""
    ann.open(f"/redrives/{planned(pages.ledger).redrive_id}")
    assert ann.page.locator(".cg-bar .cg-full").count() == 0
    assert ann.page.locator(".cg-bar progress").count() == 1


def test_a_live_page_says_in_which_zone_its_time_is(ann: OpenPage) -> None:
    ann.open("/overview")
    expect(ann.page.locator("#cg-live-status")).to_contain_text(" UTC")


def test_of_two_operators_the_second_is_told(ann: OpenPage, ben: OpenPage) -> None:
    """Of a breaker and of a limit: the form was filled in before the other's change."""
    for path, button, told in (
        (BREAKER, "Open", "Nothing was changed"),
        (f"{BUDGET}&limit=7", "Set the limit to $7.00", "Nothing was changed"),
    ):
        ann.open(path)
        ben.open(path)
        send(ann.page, button)
        expect(ann.page.get_by_role("alert").first).not_to_contain_text(told)
        send(ben.page, button)
        expect(ben.page.get_by_role("alert").first).to_contain_text(told)


def test_of_two_operators_one_starts_a_redrive(
    pages: PagesUnderTest, ann: OpenPage, ben: OpenPage
) -> None:
    """The other is told that it has begun already."""
    seen = planned(pages.ledger)
    for operator in (ann, ben):
        operator.open(f"/redrives/{seen.redrive_id}")
        operator.page.get_by_label("How many calls do you expect it to release?").fill(
            str(seen.counts.pending)
        )
        operator.page.get_by_label("Calls of which an attempt").select_option(index=2)
    send(ann.page, "Start")
    expect(ann.page.get_by_role("alert")).to_contain_text("Started")
    send(ben.page, "Start")
    expect(ben.page.get_by_role("alert")).to_contain_text("Nothing was changed")


def test_the_page_without_a_database_can_be_read(standing: Deployment, browser: Browser) -> None:
    """Its button too, and it says once what happened."""
    nowhere = "postgresql+psycopg2://nobody@127.0.0.1:9/none"
    with (
        a_flower(standing, CALLGATE_DATABASE_URL=nowhere, **LOGGED_IN) as flower,
        a_page(browser, flower, LOGINS["ann"]) as page,
    ):
        page.page.goto(f"http://127.0.0.1:{flower.port}/overview")
        expect(page.page.get_by_role("heading", level=1)).to_have_text("The database is away")
        assert page.wrong_for_axe() == []
        told = page.page.get_by_role("alert").inner_text().lower()
        assert told.count("did not answer") == 1, told
