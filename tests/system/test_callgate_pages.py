"""callgate's pages in a browser: every page at two widths, by keyboard, live, and with hostile names in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.errors import CallFailed
from devkit.simulator.simulator import Kind, Rule, Step
from tests.acceptance.conftest import deployment, provider, standing
from tests.support.deployment import Deployment
from tests.support.flower import FlowerUnderTest, a_flower
from tests.support.flower_forms import LOGGED_IN, LOGINS
from tests.support.ledger_under_test import LedgerUnderTest, open_postgres
from tests.support.pages import OpenPage, a_chromium, a_page
from worker.flower.pages import PAGES, TABS

__all__ = ["deployment", "provider", "standing"]

HTML = "<img src=x onerror=document.title='ran'>"
TABBED = [page.path for page in PAGES if page.name in dict(TABS)]
"""The paths of pages that have a tab; they need no argument."""
REFUSED = Rule(reply=[Step(kind=Kind.STATUS, status=401)])
FLOWERS = ["/workers", "/tasks", "/broker"]


@pytest.fixture(scope="module")
def ledger(standing: Deployment) -> Iterator[LedgerUnderTest]:
    """The deployment's ledger, with a bit of everything in it, and hostile names."""
    with closing(PostgresSession(standing.services.database_url)) as session:
        ledger = open_postgres(session)
        ledger.set_budget(100_000)
        ledger.succeeded("one", model=HTML)
        ledger.dead("two", model=HTML)
        ledger.lost("three")
        ledger.waiting("four", 3_600)
        yield ledger


@pytest.fixture(scope="module")
def flower(standing: Deployment, ledger: LedgerUnderTest) -> Iterator[FlowerUnderTest]:
    """Flower with several users, and a worker that has run a call."""
    with a_flower(standing, **LOGGED_IN) as flower:
        flower.until_it_receives()
        standing.worker()
        yield flower
        standing.stop_workers()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with a_chromium() as browser:
        yield browser


@pytest.fixture
def ann(browser: Browser, flower: FlowerUnderTest) -> Iterator[OpenPage]:
    """The operator's page."""
    with a_page(browser, flower, LOGINS["ann"]) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", TABBED)
def test_every_page_is_in_order(
    browser: Browser,
    flower: FlowerUnderTest,
    tmp_path: Path,
    path: str,
    scheme: Literal["light", "dark"],
) -> None:
    """For axe, in the console, and at 400 pixels; no name in the ledger is run."""
    with a_page(browser, flower, LOGINS["ann"], scheme) as page:
        page.open(path)
        page.check(f"{scheme}{path.replace('/', '-')}", tmp_path)
        assert page.page.title().endswith("callgate")
        assert page.page.locator("main img").count() == 0


@pytest.mark.parametrize("path", FLOWERS)
def test_flowers_own_pages_say_what_they_mean_here(
    browser: Browser, flower: FlowerUnderTest, path: str
) -> None:
    """With our tabs, and no error in the console."""
    with a_page(browser, flower, LOGINS["vera"]) as page:
        page.open(path)
        expect(page.page.locator('.app-nav a[href="/overview"]')).to_be_visible()
        if path != "/broker":
            expect(page.page.locator(".cg-note")).to_contain_text("call")
        assert page.said == []
        assert page.page.evaluate("window.violations") == []


def test_the_table_of_tasks_shows_calls(standing: Deployment, ann: OpenPage) -> None:
    """A call that died is a task that succeeded; the row says so, and leads to the call."""
    org = standing.org()
    standing.provider.script([REFUSED])
    handle = standing.client.submit(standing.request(org))
    with pytest.raises(CallFailed):
        handle.get(timeout=60)
    standing.provider.reset()
    ann.open("/tasks")
    row = ann.page.locator("#tasks-table tbody tr", has_text=handle.task_id)
    expect(row.locator(".badge")).to_have_text("CALL DEAD")
    expect(row.locator("a").nth(1)).to_have_attribute("href", f"/calls/{handle.task_id}")

    ann.open(f"/task/{handle.task_id}")
    expect(ann.page.locator(".cg-note")).to_contain_text("DEAD")
    assert ann.page.locator("#task-revoke, #task-terminate").count() == 0
    assert ann.said == []


def test_a_change_by_keyboard(ann: OpenPage) -> None:
    """From the address to the message that it is done, with Tab and Enter."""
    ann.open("/actions")
    ann.page.keyboard.press("Tab")
    assert ann.page.evaluate("document.activeElement.className") == "skip-link"
    for _ in range(60):
        ann.page.keyboard.press("Tab")
        if ann.page.evaluate("document.activeElement.id") == "reason-note":
            break
    ann.page.keyboard.type("by keyboard")
    ann.page.keyboard.press("Tab")
    assert ann.page.evaluate("document.activeElement.textContent") == "Write"
    ann.page.keyboard.press("Enter")

    expect(ann.page.locator("[role=alert]")).to_have_text("The note is in the log.")
    expect(ann.page.locator("#live td", has_text="by keyboard")).to_have_count(1)
    ann.check()


def test_an_impatient_operator_changes_something_once(ann: OpenPage) -> None:
    """The button is pressed twice before the first answer."""
    ann.open("/actions")
    ann.page.locator("#reason-note").fill("impatient")
    ann.page.get_by_role("button", name="Write").dblclick()

    expect(ann.page.locator("[role=alert]")).to_be_visible()
    ann.open("/actions?operator=ann")
    expect(ann.page.locator("#live td", has_text="impatient")).to_have_count(1)


def test_a_viewer_sees_why_nothing_can_be_changed(
    browser: Browser, flower: FlowerUnderTest
) -> None:
    with a_page(browser, flower, LOGINS["vera"]) as page:
        page.open("/actions")
        expect(page.page.get_by_role("button", name="Write")).to_be_disabled()
        expect(page.page.locator("#reason-note-why")).to_contain_text("has no role operator")
        page.check()


def test_an_open_page_is_live_until_it_is_paused_or_not_looked_at(
    ledger: LedgerUnderTest, ann: OpenPage
) -> None:
    ann.open("/overview")
    queued = ann.page.locator(".cg-tile", has_text="Waiting").locator(".metric-value")
    before = int(queued.inner_text())
    ledger.waiting("one more", 3_600)
    expect(queued).to_have_text(str(before + 1), timeout=20_000)

    asked: list[str] = []
    ann.page.on("request", lambda request: asked.append(request.url))
    ann.page.get_by_role("button", name="Pause").click()
    expect(ann.page.locator("#cg-live-status")).to_contain_text("Paused")
    ann.page.wait_for_timeout(11_000)
    assert asked == []
    ann.page.get_by_role("button", name="Go on").click()
    ann.page.evaluate("document.hasFocus = () => false")
    ann.page.wait_for_timeout(11_000)
    assert asked == []
    expect(ann.page.locator("#cg-live-status")).to_contain_text("Paused")
    ann.page.evaluate("document.activeElement.blur(); document.hasFocus = () => true")
    with ann.page.expect_request("**/overview"):
        pass
    ann.check()


def test_times_are_shown_in_the_zone_that_is_chosen(ann: OpenPage) -> None:
    ann.open("/actions")
    first = ann.page.locator("#live time").first
    in_utc = first.inner_text()
    with ann.page.expect_navigation():
        ann.page.locator("#cg-zone").select_option("Asia/Tokyo")
    expect(ann.page.locator("#cg-zone")).to_have_value("Asia/Tokyo")
    assert first.inner_text() != in_utc
    ann.open("/overview")
    expect(ann.page.locator("#cg-zone")).to_have_value("Asia/Tokyo")


def test_the_theme_is_that_of_flower(ann: OpenPage) -> None:
    """One choice for all pages."""
    ann.open("/overview")
    ann.page.locator("#theme-toggle").click()
    ann.page.locator("[data-bs-theme-value=dark]").click()
    ann.open("/tasks")
    expect(ann.page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    ann.open("/overview")
    ann.check()
