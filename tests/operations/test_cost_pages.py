"""The pages of costs and workers in a real Flower: what they say is what the ledger's sums and leases say."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html import escape, unescape
from http.cookiejar import Cookie
from typing import Any
from urllib.parse import quote

import pytest

from callgate.domain.calls import CallState
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.sums import CostFilter
from tests.support.ledger_under_test import LedgerUnderTest, a_loss, a_submission
from tests.support.operators_pages import PagesUnderTest
from tests.support.visitor import Visitor

USD = 10**9
HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;; --"
FORMULA = "=cmd|' /C calc'!A0"


def used(ledger: LedgerUnderTest, org_id: str) -> None:
    """What an organisation used today: two call types, a duplicate, an unknown bill."""
    ledger.set_budget(100 * USD, org_id=org_id)
    ledger.succeeded("one", 3 * USD, org_id=org_id, hold_nano_usd=3 * USD)
    ledger.submit(a_submission("one", org_id=org_id))
    ledger.succeeded("two", USD, org_id=org_id, call_type="triage", hold_nano_usd=USD)
    lost = ledger.running("lost", USD, org_id=org_id, call_type="triage")
    ledger.settle(a_loss(lost, USD, next_state=CallState.DEAD))


def series(vera: Visitor, query: str) -> dict[str, Any]:
    """The data of a chart."""
    found: dict[str, Any] = json.loads(vera.get(f"/costs/series?{query}").text)
    return found


def choose_zone(visitor: Visitor, zone: str) -> None:
    """Choose a time zone, as the page's script does."""
    of_host: tuple[Any, ...] = (
        "127.0.0.1",
        True,
        False,
        "/",
        True,
        False,
        None,
        False,
        None,
        None,
        {},
    )
    visitor.cookies.set_cookie(Cookie(0, "callgate_zone", zone, None, False, *of_host))


def test_what_an_organisation_spent_today_and_on_what_is_two_clicks(
    ledger: LedgerUnderTest, vera: Visitor
) -> None:
    """The tab, the organisation; and what collapsing saved, and what an unknown bill costs."""
    used(ledger, "clicked")

    tab = vera.get("/costs")
    (to,) = re.findall(r'href="([^"]*)">clicked</a>', tab.text)
    page = vera.get(unescape(to))

    for word in (
        "$5.00",
        "extraction",
        "triage",
        "gpt-4o-mini",
        "Saved by collapsing $3.00",
        "1 duplicates",
    ):
        assert word in page.words, word
    assert "Unknown bills $1.00 20 % · 1 posted at their hold" in page.words
    assert "3 calls, 3 attempts" in page.words
    assert "+?: the tokens of 1 paid attempts are not known" in page.words
    rows = re.findall(r"<tr>.*?</tr>", page.text, re.DOTALL)[1:]
    assert ["extraction" in row for row in rows] == [True, False], "the largest comes first"


def test_every_link_of_a_view_is_a_view(ledger: LedgerUnderTest, vera: Visitor) -> None:
    """Narrowing, widening, grouping, times: each address works as it stands, whatever the names are."""
    ledger.set_budget(USD, org_id=HOSTILE)
    ledger.succeeded("one", 5, org_id=HOSTILE, model=HOSTILE, call_type=FORMULA)
    seen: set[str] = set()
    todo = ["/costs", f"/costs?org={quote(HOSTILE)}"]
    while todo and len(seen) < 25:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        page = vera.get(path)
        assert page.status == 200, path
        assert "<img src=x" not in page.text
        todo += [unescape(to) for to in re.findall(r'href="(/costs\?[^"]*)"', page.text)][:8]
    assert escape(HOSTILE)[:15] in vera.get(f"/costs?org={quote(HOSTILE)}").text


def test_a_file_has_the_lines_of_the_view(ledger: LedgerUnderTest, vera: Visitor) -> None:
    """By day too; a name that a spreadsheet would run is a text."""
    used(ledger, "filed")
    ledger.succeeded("formula", 7, org_id="filed", call_type=FORMULA)

    whole = list(csv.DictReader(io.StringIO(vera.get("/costs.csv?org=filed&by=type").text)))
    by_day = list(csv.DictReader(io.StringIO(vera.get("/costs.csv?org=filed&by=type&days=1").text)))

    told = {row["call_type"]: int(row["posted_nano_usd"]) for row in whole}
    assert told == {"extraction": 3 * USD, "triage": 2 * USD, f"'{FORMULA}": 7}
    assert next(row["call_type"] for row in whole) == "extraction"
    assert {row["day"] for row in by_day} == {str(ledger.now().date())}
    lines = ledger.operations.costs(CostFilter(org_id="filed"), ("call_type",))
    for name in ("attempts", "collapsed", "saved_nano_usd", "input_tokens", "without_tokens"):
        assert sum(int(row[name]) for row in whole) == sum(getattr(x.used, name) for x in lines)


def test_a_chart_adds_up_to_the_totals(ledger: LedgerUnderTest, vera: Visitor) -> None:
    """By the hours of a day, by the days of longer times, each from its beginning to now."""
    used(ledger, "charted")

    for query, step in (("", "hour"), ("&period=7d", "day"), ("&period=30d", "day")):
        data = series(vera, f"org=charted&by=type{query}")
        assert data["step"] == step
        lines = {line["name"]: sum(line["usd"]) for line in data["lines"]}
        assert lines == pytest.approx({"extraction": 3.0, "triage": 2.0})
        assert {len(line["usd"]) for line in data["lines"]} == {len(data["starts"])}
        assert data["starts"] == sorted(data["starts"])
    assert series(vera, "org=nobody")["lines"] == []


def test_a_day_is_one_of_the_pages_time_zone(
    pages: PagesUnderTest, ledger: LedgerUnderTest
) -> None:
    """What was used now belongs to a day that began at another moment there."""
    used(ledger, "zoned")
    visitor = pages.visitor("vera")
    now = datetime.now(UTC)
    for hours in (-11, 13):
        zone = f"Etc/GMT{-hours:+d}"
        choose_zone(visitor, zone)
        begins = (now + timedelta(hours=hours)).replace(hour=0, minute=0, second=0, microsecond=0)

        page, data = visitor.get("/costs?org=zoned"), series(visitor, "org=zoned")

        assert f"{begins:%Y-%m-%d} 00:00:00 to" in page.words
        assert zone in page.words
        assert data["zone"] == zone
        assert data["starts"][0] == int((begins - timedelta(hours=hours)).timestamp())
        assert "$5.00" in page.words


def test_own_days_are_counted_wholly(ledger: LedgerUnderTest, vera: Visitor) -> None:
    """From the first to the last; yesterday has nothing of today."""
    used(ledger, "own")
    today = ledger.now().date()

    whole = vera.get(f"/costs?org=own&period=own&from={today}&to={today}")
    before = vera.get("/costs?org=own&period=yesterday")

    assert "$5.00" in whole.words
    assert "Nothing was used in this time." in before.words


@pytest.mark.parametrize(
    "query",
    [
        "period=never", "by=colour", "period=own&from=1", "period=own&from=2026-11-02&to=2026-11-01",
        "period=own&from=2020-01-01&to=2026-01-01", "period=own&from=0001-01-01", f"model={'x' * 200}",
    ],
)  # fmt: skip
def test_an_address_that_means_nothing_says_why(vera: Visitor, query: str) -> None:
    """Of the page, the chart and the file."""
    for path in ("/costs", "/costs/series", "/costs.csv"):
        page = vera.get(f"{path}?{query}")
        assert page.status == 400, path
        assert page.alerts


def test_workers_are_shown_by_their_leases(ledger: LedgerUnderTest, vera: Visitor) -> None:
    """What each is made of, where it differs, and which went silent; without any event of Celery's."""
    ours = Fingerprint("0.2.0", "0002", "5e771295", "ca7a1095")
    for name, parts in (
        ("a", ours),
        ("b", ours),
        ("c", Fingerprint("0.1.9", *["0002", "5e771295", "0dd0dd"])),
    ):
        ledger.leases.renew(f"host:1:{name}", 60.0, slots=8)
        ledger.fingerprints.publish(f"host:1:{name}", parts)
    ledger.leases.renew("silent:1:d", 0.001)
    ledger.leases.renew(f"host:1:{HOSTILE[:40]}", 60.0)
    lost = ledger.running("lost")
    ledger.settle(a_loss(lost))

    page = vera.get("/leases")

    for word in (
        "host:1:a",
        "0.1.9",
        "silent for",
        "Live workers differ in their version and catalogue",
        "of 24 slots",
    ):
        assert word in page.words, word
    assert "<img src=x" not in page.text
    assert page.text.count("(differs)") == 3, (
        "the version and the catalogue of one, and one that says nothing"
    )
    assert lost.key.task_id in page.text
    assert "waiting retry 1" in page.words


def test_no_worker_is_an_answer(
    pages: PagesUnderTest, ledger: LedgerUnderTest, vera: Visitor
) -> None:
    """And says what to do."""
    for worker in ledger.workers.worker_lines():
        ledger.leases.release(worker.worker_id)

    assert "No worker is live." in vera.get("/leases").words
