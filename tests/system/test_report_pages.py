"""Dead letters, costs and workers in a real browser: every flow is clicked through, in both themes, and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from callgate.domain.delivery import LinkOutcome
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.reports import UnprocessableMessage
from tests.acceptance.conftest import deployment, provider, standing
from tests.support.deployment import Deployment
from tests.support.ledger_under_test import LINK, LedgerUnderTest, a_failure, a_loss, a_submission
from tests.support.operators_pages import PagesUnderTest, the_pages

__all__ = ["deployment", "provider", "standing"]

AXE = (Path(__file__).parents[1] / "support" / "vendor" / "axe.min.js").read_text("utf-8")
CHROMIUM = "/usr/bin/chromium"
HOSTILE = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>"
USD = 10**9
PATHS = (
    *("/dead-letters", "/dead-letters?show=refused", "/dead-letters?show=links", "/dead-letters?show=messages"),
    *("/costs", "/costs?org=browsed", "/costs?period=30d&by=org,model", "/leases"),
)  # fmt: skip


@dataclass
class Visit:
    """One page of the browser, and what it complained about."""

    page: Page
    base: str
    wrong: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go there, and wait until nothing is loaded any more."""
        self.page.goto(self.base + path, wait_until="networkidle")

    def faults(self) -> list[str]:
        """What axe finds that is serious."""
        self.page.evaluate(AXE)
        found: dict[str, Any] = self.page.evaluate("axe.run()")
        return [
            f"{fault['id']}: {node['html'][:200]}"
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]


def fill(ledger: LedgerUnderTest) -> None:
    """Something for each page, with names that would run as script."""
    ledger.set_budget(100 * USD, org_id="browsed")
    for number in range(3):
        ref = ledger.answered(f"dead {number}", org_id="browsed", model=HOSTILE, call_type=HOSTILE)
        ledger.settle(a_failure(ref, posted_nano_usd=USD))
    ledger.succeeded("paid", 2 * USD, org_id="browsed", hold_nano_usd=2 * USD)
    ledger.submit(a_submission("paid", org_id="browsed"))
    ledger.settle(a_loss(ledger.running("lost", org_id="browsed")))
    key = ledger.rejected("refused", org_id="browsed", link=LINK)
    (delivery,) = ledger.links(keys=[key])
    ledger.ledger.keep_link_outcomes([LinkOutcome(delivery.submission_id, HOSTILE)])
    ledger.operations.keep_unprocessable(UnprocessableMessage("callgate.call", HOSTILE, b"x"))
    for name, version in (("a", "0.2.0"), ("b", "0.2.0"), ("c", "0.1.9")):
        ledger.leases.renew(f"host:1:{name}", 3_600.0, slots=8)
        ledger.fingerprints.publish(f"host:1:{name}", Fingerprint(version, "2", "3", "4"))


@pytest.fixture(scope="module")
def pages(standing: Deployment) -> Iterator[PagesUnderTest]:
    """Flower over a ledger with something on each page."""
    with the_pages(standing) as pages:
        fill(pages.ledger)
        yield pages


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def visit(
    request: pytest.FixtureRequest, chromium: Browser, pages: PagesUnderTest
) -> Iterator[Visit]:
    """An operator's browser. Whatever it does, no script fails, no policy is violated, and nothing foreign runs."""
    with chromium.new_context(
        http_credentials={"username": "ann", "password": "the right one"},
        color_scheme=request.param,
        viewport={"width": 1_360, "height": 900},
    ) as context:
        visit = Visit(context.new_page(), f"http://127.0.0.1:{pages.port}")
        visit.page.on("pageerror", lambda error: visit.wrong.append(str(error)))
        visit.page.on(
            "console", lambda told: visit.wrong.append(told.text) if told.type == "error" else None
        )
        yield visit
        assert visit.wrong == []
        assert visit.page.title() != "ran"


def test_what_an_organisation_spent_is_two_clicks_and_a_chart(visit: Visit) -> None:
    """The chart is drawn; the address of the view is the view."""
    visit.open("/leases")
    visit.page.goto(visit.base + "/costs")
    visit.page.get_by_role("link", name="browsed", exact=True).click()

    expect(visit.page.get_by_role("region", name="Costs", exact=True)).to_contain_text("extraction")
    expect(visit.page.locator("#cg-chart")).to_have_attribute("data-drawn", "true")
    expect(visit.page.locator("#cg-chart canvas")).to_be_visible()
    assert "org=browsed" in visit.page.url
    visit.page.get_by_role("link", name="Kind of attempt").click()
    expect(visit.page.get_by_role("region", name="Costs", exact=True)).to_contain_text("first")
    visit.page.get_by_role("link", name=re.compile("Organisation: browsed")).click()
    assert "org=" not in visit.page.url
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="CSV", exact=True).click()
    assert Path(download.value.path()).read_text("utf-8").startswith("call_type,provider,model,")


def test_a_chart_that_cannot_be_read_says_so(visit: Visit) -> None:
    """The table is complete without it."""
    visit.page.route("**/costs/series?*", lambda route: route.abort())
    visit.open("/costs?org=browsed")

    expect(visit.page.locator("#cg-chart")).to_contain_text("could not be read")
    visit.wrong[:] = [told for told in visit.wrong if "ERR_FAILED" not in told]


def test_a_group_is_looked_at_and_discarded(visit: Visit, pages: PagesUnderTest) -> None:
    """With a wrong number nothing happens; with the right one and a reason it is done, and logged."""
    visit.open("/dead-letters?org=browsed")
    visit.page.get_by_role("link", name="rate_limited").click()
    expect(visit.page.get_by_role("region", name="Calls")).to_contain_text("browsed")
    expected = visit.page.get_by_label("How many do you expect to discard?")
    count = int(visit.page.locator(".metric-value").first.inner_text())

    for number, told in ((count + 1, "Nothing was changed"), (count, f"Discarded: {count} of")):
        visit.page.get_by_label("How many do you expect to discard?").fill(str(number))
        visit.page.get_by_label("Reason, for the action log").fill("a model that is gone")
        visit.page.get_by_role("button", name="Discard").click()
        expect(visit.page.get_by_role("alert")).to_contain_text(told)

    expect(expected).to_have_count(0)
    visit.open("/actions")
    expect(visit.page.locator("main")).to_contain_text("dead_letters.discard")
    for number in range(3):  # For the other theme.
        ref = pages.ledger.answered(
            f"dead again {number}", org_id="browsed", model=HOSTILE, force=True
        )
        pages.ledger.settle(a_failure(ref, posted_nano_usd=USD))


def test_a_link_is_tried_again(visit: Visit, pages: PagesUnderTest) -> None:
    """The one that is ticked."""
    visit.open("/dead-letters?show=links")
    visit.page.get_by_role("checkbox").first.check()
    visit.page.get_by_label("Reason, for the action log").fill("the queue is there again")
    visit.page.get_by_role("button", name="Try the chosen ones again").click()

    expect(visit.page.get_by_role("alert")).to_contain_text("1 of 1 links are tried again now.")
    for delivery in pages.ledger.links(limit=10):
        again = LinkOutcome(delivery.submission_id, HOSTILE)
        pages.ledger.ledger.keep_link_outcomes([again])


def test_workers_are_live_can_be_paused_and_have_a_time_zone(
    visit: Visit, pages: PagesUnderTest
) -> None:
    """What changes in the ledger is seen without a click, until it is paused."""
    visit.open("/leases")
    expect(visit.page.get_by_role("alert")).to_contain_text("Live workers differ in their version")
    pages.ledger.leases.renew("host:1:newcomer", 3_600.0)
    expect(visit.page.locator("#live")).to_contain_text("host:1:newcomer", timeout=20_000)

    visit.page.get_by_role("button", name="Pause").click()
    expect(visit.page.locator("#cg-live-status")).to_contain_text("Paused")
    visit.page.get_by_label("Times are in").select_option("Asia/Tokyo")
    expect(visit.page.get_by_label("Times are in")).to_have_value("Asia/Tokyo")
    visit.open("/costs")
    expect(visit.page.locator("main")).to_contain_text("Asia/Tokyo")
    pages.ledger.leases.release("host:1:newcomer")


@pytest.mark.parametrize("path", PATHS)
def test_nobody_is_shut_out(visit: Visit, path: str) -> None:
    """axe finds nothing serious; on a phone nothing is cut off, and Tab reaches what can be clicked."""
    visit.open(path)
    assert visit.faults() == []
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.className") == "skip-link"
    names = set()
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        names.add(visit.page.evaluate("document.activeElement.closest('main') ? 'main' : 'other'"))
    assert "main" in names

    visit.page.set_viewport_size({"width": 400, "height": 800})
    visit.open(path)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert visit.faults() == []
