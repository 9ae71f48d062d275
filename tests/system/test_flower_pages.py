"""Flower's pages in a browser, with forged events: only its own scripts run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import deployment, provider, standing
from tests.support.browser import Browser, a_browser
from tests.support.deployment import Deployment, until
from tests.support.flower import AUTH, HTML, FlowerUnderTest, a_flower, publish, task_event
from tests.support.forged_events import FORGED, FORGED_TASKS

__all__ = ["deployment", "provider", "standing"]

SHOWN = task_event("succeeded", uuid="shown-1", result=HTML, runtime=1.5)


@pytest.fixture(scope="module")
def flower(standing: Deployment) -> Iterator[FlowerUnderTest]:
    """Flower, a worker, one call that ended, and all forged events."""
    with a_flower(standing) as flower:
        flower.until_it_receives()
        standing.worker()
        org = standing.org()
        handle = standing.client.submit(standing.request(org))
        handle.get(timeout=60)
        publish(standing, [*FORGED.values(), *FORGED_TASKS.values()])
        texts = dict.fromkeys(("args", "kwargs"), HTML)
        publish(standing, [task_event(uuid="shown-1", **texts), SHOWN])
        flower.until_it_has_received_all()
        until(lambda: flower.tasks().get(handle.task_id, {}).get("state") == "SUCCESS", 30.0)
        yield flower
        standing.stop_workers()


@pytest.fixture
def browser(flower: FlowerUnderTest) -> Iterator[Browser]:
    """A browser that is logged in."""
    with a_browser() as browser:
        browser.log_in(AUTH)
        yield browser


def nothing_foreign_ran(browser: Browser) -> None:
    """Check that no policy was violated, no script failed, and the forged one did not run."""
    told = browser.told()
    assert (told["violations"], told["wrong"]) == ([], [])
    assert told["title"].endswith("Flower")
    assert browser.see("document.querySelectorAll('main img, main script').length") == 0


def test_pages_work_and_run_only_their_own_scripts(
    flower: FlowerUnderTest, browser: Browser
) -> None:
    """Each page works as it does without the policy."""
    url = f"http://127.0.0.1:{flower.port}"
    browser.open(f"{url}/workers")
    browser.until("/^Updated/.test(document.getElementById('workers-refresh-status').textContent)")
    browser.until("document.querySelectorAll('#workers-table tbody tr').length >= 1")
    # It asks again by itself: its inline script is let through.
    browser.see("document.getElementById('workers-refresh-status').textContent = 'old'")
    browser.until("document.getElementById('workers-refresh-status').textContent !== 'old'")
    nothing_foreign_ran(browser)

    browser.open(f"{url}/tasks")
    browser.until("document.querySelector('#tasks-table tbody').textContent.includes('shown-1')")
    browser.see("document.querySelector('[data-task-state=SUCCESS]').click()")
    browser.until("document.querySelectorAll('#tasks-table tbody tr').length >= 1")
    nothing_foreign_ran(browser)

    browser.open(f"{url}/task/shown-1")
    assert HTML in browser.see("document.querySelector('main').textContent")
    nothing_foreign_ran(browser)

    browser.open(f"{url}/broker")
    browser.until("document.querySelectorAll('#queue-table tbody tr').length >= 1")
    nothing_foreign_ran(browser)

    (name,) = [name for name in flower.workers() if name.startswith("callgate")]
    browser.open(f"{url}/worker/{name}")
    browser.see("document.getElementById('worker-tab-queues').click()")
    browser.until("document.getElementById('tab-queues').classList.contains('show')")
    browser.see("document.getElementById('theme-toggle').click()")
    browser.until("document.querySelector('.theme-menu').classList.contains('show')")
    browser.see("document.querySelector('[data-bs-theme-value=dark]').click()")
    browser.until("document.documentElement.dataset.bsTheme === 'dark'")
    assert browser.see("document.querySelectorAll('#worker-shutdown').length") == 0
    nothing_foreign_ran(browser)


@pytest.mark.parametrize(
    "html",
    [
        HTML,
        "<svg onload=\"document.title='ran'\"></svg>",
        "<iframe srcdoc=\"<script>parent.document.title='ran'</script>\"></iframe>",
        "<a id=go href=\"javascript:document.title='ran'\">x</a>",
        "<form id=go action='http://127.0.0.1:1/'><input name=a></form>",
    ],
)
def test_the_policy_stops_markup_that_passed_the_checks(
    flower: FlowerUnderTest, browser: Browser, html: str
) -> None:
    """As if a check were missing."""
    browser.open(f"http://127.0.0.1:{flower.port}/tasks")
    browser.see(f"document.querySelector('main').innerHTML = {html!r}")
    browser.see("(e => e && (e.submit ? e.submit() : e.click()))(document.getElementById('go'))")

    browser.until("[window, ...Array.from(frames)].some(seen => (seen.violations || []).length)")
    assert browser.see("document.title").endswith("Flower")
    assert browser.see("location.pathname") == "/tasks"


def test_another_page_cannot_frame_flower(flower: FlowerUnderTest, browser: Browser) -> None:
    """It could otherwise capture an operator's clicks."""
    url = f"http://127.0.0.1:{flower.port}/tasks"
    browser.open("about:blank")
    browser.see(f"document.body.innerHTML = '<iframe id=f src={url}></iframe>'")

    def framed() -> str:
        (child,) = browser.command("Page.getFrameTree")["frameTree"]["childFrames"]
        return str(child["frame"]["url"])

    until(lambda: framed().startswith("chrome-error:"), 20.0, framed)
