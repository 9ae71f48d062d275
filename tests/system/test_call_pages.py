"""The pages of calls in a browser: searched, narrowed by a drag, paged, cancelled, and their bodies shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, expect

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey, CallState
from tests.acceptance.conftest import deployment, provider, standing
from tests.support.deployment import Deployment
from tests.support.flower import FlowerUnderTest, a_flower
from tests.support.flower_forms import LOGGED_IN, LOGINS
from tests.support.ledger_under_test import (
    LINK,
    LedgerUnderTest,
    a_failure,
    a_submission,
    a_success,
    an_answer,
    open_postgres,
)
from tests.support.pages import OpenPage, a_chromium, a_page

__all__ = ["deployment", "provider", "standing"]

ORG, OTHER = "browsed", "browsed too"
HTML = "<img src=x onerror=document.title='ran'><script>document.title='ran'</script>"
TEXT = "what only a reader of bodies sees"


@pytest.fixture(scope="module")
def ledger(standing: Deployment) -> Iterator[LedgerUnderTest]:
    """The deployment's ledger, with 65 calls of one organisation, spread over some hours."""
    with closing(PostgresSession(standing.services.database_url)) as session:
        ledger = open_postgres(session)
        ledger.set_budget(10**12, org_id=ORG)
        for number in range(60):
            ref = ledger.answered(f"call {number}", org_id=ORG, model="m1" if number % 3 else "m2")
            ledger.settle(a_success(ref, 5_000_000) if number % 5 else a_failure(ref))
            if number % 10 == 9:
                ledger.age(1_800)
        for number in range(5):
            ledger.queued(f"queued {number}", org_id=ORG)
        yield ledger


@pytest.fixture(scope="module")
def flower(standing: Deployment, ledger: LedgerUnderTest) -> Iterator[FlowerUnderTest]:
    """Flower with several users."""
    with a_flower(standing, **LOGGED_IN) as flower:
        yield flower


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with a_chromium() as browser:
        yield browser


@pytest.fixture
def ann(browser: Browser, flower: FlowerUnderTest) -> Iterator[OpenPage]:
    """An operator's page."""
    with a_page(browser, flower, LOGINS["ann"]) as page:
        yield page


@pytest.fixture(params=["light", "dark"])
def bo(
    request: pytest.FixtureRequest, browser: Browser, flower: FlowerUnderTest
) -> Iterator[OpenPage]:
    """The page of a reader of bodies; in the dark it is a phone."""
    with a_page(browser, flower, LOGINS["bo"], request.param) as page:
        yield page


def one(key: CallKey) -> str:
    """The path of a call."""
    return f"/calls/{key.task_id}"


def test_a_search_is_typed_narrowed_and_paged(ann: OpenPage) -> None:
    """The address is the view; the chart and the count come after the list."""
    page = ann.page
    ann.open("/calls")
    page.get_by_label("Words of the search").fill(f"org:{ORG}")
    page.keyboard.press("Enter")
    expect(page.locator(".cg-count")).to_have_text("65 calls")
    expect(page.locator(".cg-chart canvas")).to_be_visible()
    assert page.url.endswith(f"/calls?q=org%3A{ORG}")
    expect(page.locator(".cg-calls tbody tr")).to_have_count(50)
    ann.check()

    page.get_by_role("link", name="Older").click()
    expect(page.locator(".cg-calls tbody tr")).to_have_count(15)
    page.get_by_role("link", name="Newer").click()
    expect(page.locator(".cg-calls tbody tr")).to_have_count(50)

    page.get_by_role("navigation", name="State").get_by_role("link", name="dead").click()
    expect(page.locator(".cg-count")).to_have_text("12 calls")
    expect(page.locator("figcaption")).to_contain_text("Calls by state")
    page.locator(".cg-calls").get_by_role("link", name="openai/m2").first.click()
    expect(page.get_by_label("Words of the search")).to_have_value(
        f"org:{ORG} state:dead provider:openai model:m2"
    )
    ann.check()


def test_a_drag_over_the_chart_narrows_to_that_time(ann: OpenPage) -> None:
    page = ann.page
    ann.open(f"/calls?q=org%3A{ORG}+state%3Adead")
    over = page.locator(".cg-chart .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30, steps=4)
    page.mouse.up()

    page.wait_for_url("**since**until**")
    words = page.get_by_label("Words of the search").input_value()
    assert words.startswith(f"org:{ORG} state:dead since:")
    expect(page.locator(".cg-calls tbody tr").first).to_be_visible()
    assert 0 < page.locator(".cg-calls tbody tr").count() < 12
    ann.check()


def test_the_theme_changes_the_chart_too(ann: OpenPage) -> None:
    page = ann.page
    ann.open(f"/calls?q=org%3A{ORG}")
    expect(page.locator(".cg-chart canvas")).to_be_visible()
    page.evaluate("document.documentElement.dataset.bsTheme = 'dark'")
    expect(page.locator(".cg-chart canvas")).to_be_visible()
    ann.check()


def test_wrong_words_and_unknown_calls_are_in_order_too(ann: OpenPage) -> None:
    """Their pages have a status of their own, which the console names."""
    for path in ("/calls?q=colour%3Ared", "/calls/not-an-id", f"/calls?q=org%3A{ORG}&older=x"):
        ann.open(path)
        expect(ann.page.locator("[role=alert]")).to_be_visible()
        assert [text for text in ann.said if "Failed to load resource" not in text] == []
        assert ann.wrong_for_axe() == []


def test_an_operator_cancels_a_call(ledger: LedgerUnderTest, ann: OpenPage) -> None:
    """From the list to the message that it is done; its timeline says by whom."""
    key = ledger.queued("to be cancelled", org_id=OTHER)
    page = ann.page
    ann.open(f"/calls?q={key.task_id}")
    page.locator(".cg-id").click()
    page.wait_for_url(f"**{one(key)}")
    ann.check()
    page.locator("#reason-cancel").fill("a typo")
    page.get_by_role("button", name="Cancel the call").click()

    expect(page.locator("[role=alert]")).to_have_text("Cancelled.")
    expect(page.locator(".cg-timeline")).to_contain_text("call.cancel by ann: a typo")
    assert page.get_by_role("button", name="Cancel the call").count() == 0
    assert ledger.state(key) is CallState.REJECTED
    ann.check()


def test_a_reader_is_shown_a_body(ledger: LedgerUnderTest, bo: OpenPage) -> None:
    """In both themes, and on a phone."""
    ledger.set_budget(10**9, org_id=OTHER)
    ref = ledger.succeeded(f"{TEXT} {bo.page.viewport_size}", org_id=OTHER)
    page = bo.page
    bo.open(one(ref.key))
    assert TEXT not in page.content()
    bo.check()
    page.get_by_label("Body", exact=True).select_option("request")
    page.locator("#reason-body").fill("ticket 7")
    page.get_by_role("button", name="Show").click()

    expect(page.locator("#body pre")).to_contain_text(TEXT)
    bo.check()
    bo.open(one(ref.key))
    assert TEXT not in page.content()
    expect(page.locator(".cg-timeline")).to_contain_text("body.show by bo: ticket 7")


def test_nothing_that_others_wrote_runs(ledger: LedgerUnderTest, bo: OpenPage) -> None:
    """Names, errors and bodies are text in the list, the chart, on the page of the call, and where a body is shown."""
    org = f"hostile {HTML} {bo.page.viewport_size}"
    ledger.set_budget(10**9, org_id=org)
    named = {"model": HTML, "provider": HTML, "call_type": HTML, "idempotency_key": f"{HTML} {org}"}
    request = json.dumps({"messages": [HTML]}).encode()
    submission = a_submission(HTML, org_id=org, link=LINK, request=request, **named)
    ref = ledger.claim(ledger.submit(submission)[0].key)
    error = json.dumps({"code": HTML, "message": HTML})
    ledger.record(an_answer(ref, error=error, provider_request_id=HTML))
    ledger.settle(a_failure(ref, error=error, error_fingerprint=HTML[:60]))
    page = bo.page

    bo.open(one(ref.key))
    bo.check()
    page.get_by_role("link", name="hostile").click()
    expect(page.locator(".cg-count")).to_have_text("1 call")
    bo.check()
    page.locator(".cg-id").click()
    page.locator("#reason-body").fill(HTML)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#body pre")).to_contain_text(HTML)
    bo.check()

    assert page.title().endswith("callgate")
    assert page.locator("main img, main script").count() == 0
