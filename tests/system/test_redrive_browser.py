"""Redrives in a real browser: planned, started and watched to their end, in both themes and on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from callgate.domain.calls import CallKey
from callgate.domain.ledger import Submitted
from callgate.domain.redrives import PricedCall
from tests.acceptance.conftest import deployment, provider, standing
from tests.contract.redrive_steps import redrives_of, released, take
from tests.support.deployment import Deployment
from tests.support.ledger_under_test import LedgerUnderTest, a_failure, a_success, an_answer
from tests.support.operators_pages import PagesUnderTest, the_pages
from tests.system.test_report_pages import HOSTILE, USD, Visit, chromium, visit

WHY = "the provider is repaired"
__all__ = ["chromium", "deployment", "provider", "standing", "visit"]


@pytest.fixture(scope="module")
def pages(standing: Deployment) -> Iterator[PagesUnderTest]:
    """Flower over a ledger with dead calls, whose names would run as script."""
    with the_pages(standing) as pages:
        pages.ledger.set_budget(100 * USD, org_id="browsed")
        yield pages


def died(ledger: LedgerUnderTest, theme: str) -> dict[CallKey, str]:
    """Three dead calls of their own for each theme."""
    contents = {}
    for number in range(3):
        content = f"{theme} {number}"
        ref = ledger.answered(content, org_id="browsed", model=HOSTILE, call_type=theme)
        ledger.settle(a_failure(ref))
        contents[ref.key] = content
    return contents


def test_a_redrive_is_planned_started_and_watched(visit: Visit, pages: PagesUnderTest) -> None:
    """What workers do is seen without a click; axe finds nothing serious in any state, also on a phone."""
    ledger, page = pages.ledger, visit.page
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    contents = died(ledger, "dark" if dark else "light")
    plan(visit, ledger, "dark" if dark else "light")
    start(visit)
    first = released(ledger, contents)
    expect(page.locator("#live")).to_contain_text("released", timeout=20_000)
    fits(visit)
    change(visit, "Pause it", "Pause the redrive")
    paused = page.get_by_role("heading", level=2, name="Paused: an operator paused it")
    expect(paused).to_be_visible()
    change(visit, "Resume it", "Resume")
    expect(page.get_by_role("alert")).to_contain_text("Resumed.")

    for number, answer in enumerate([*first, *rest(ledger, contents)]):
        ref = ledger.claim(answer.key)
        ledger.record(an_answer(ref))
        ledger.settle(a_failure(ref) if number else a_success(ref))
    ledger.age(2)
    take(ledger)
    expect(page.get_by_role("heading", level=2, name="Done")).to_be_visible(timeout=20_000)
    page.get_by_role("link", name="failed 2").click()
    expect(page.get_by_role("region", name="Calls")).to_contain_text("rate_limited")
    fits(visit)
    visit.open("/redrives")
    expect(page.get_by_role("region", name="Redrives")).to_contain_text("done")
    fits(visit)


def plan(visit: Visit, ledger: LedgerUnderTest, theme: str) -> None:
    """Choose the calls, and see what a worker says they cost."""
    page = visit.page
    visit.open(f"/redrives/new?org=browsed&type={theme}")
    fits(visit)
    page.get_by_label("Reason, for the action log").fill(WHY)
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Planned: 3 calls")
    expect(page.get_by_role("heading", level=2, name="Planning")).to_be_visible()
    step = take(ledger)
    assert step is not None
    redrives_of(ledger).price(step, [PricedCall(n, USD, 10, 5) for n, _ in step.calls])
    expect(page.locator("#live")).to_contain_text("Nothing would be refused", timeout=20_000)
    expect(page.locator("#live")).to_contain_text("$3.00")
    fits(visit)


def start(visit: Visit) -> None:
    """First with a wrong number."""
    for expected, told in (("2", "you expect 2, and 3 match"), ("3", "Started: 3 calls.")):
        form = visit.page.get_by_role("region", name="Start it")
        form.get_by_label("How many calls do you expect it to release?").fill(expected)
        form.get_by_label("Calls a minute").fill("6000")
        form.get_by_label("Spend at most (USD)").fill("5")
        form.get_by_label("Reason, for the action log").fill(WHY)
        form.get_by_role("button", name="Start", exact=True).click()
        expect(visit.page.get_by_role("alert")).to_contain_text(told)


def change(visit: Visit, region: str, button: str) -> None:
    """Pause or resume, with a reason."""
    form = visit.page.get_by_role("region", name=region)
    form.get_by_label("Reason, for the action log").fill(WHY)
    form.get_by_role("button", name=button, exact=True).click()


def rest(ledger: LedgerUnderTest, contents: dict[CallKey, str]) -> list[Submitted]:
    """What the rate did not allow at once."""
    ledger.age(10)
    return list(released(ledger, contents))


def fits(visit: Visit) -> None:
    """Nothing serious for who uses no mouse or sees little; nothing is cut off on a phone."""
    assert visit.faults() == []
    size = visit.page.viewport_size
    assert size is not None
    visit.page.set_viewport_size({"width": 400, "height": 800})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    visit.page.set_viewport_size(size)
