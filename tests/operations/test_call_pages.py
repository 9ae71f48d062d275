"""The list of calls in a real Flower: what a search shows, how it is paged, and what is said of wrong words."""

from __future__ import annotations

import json
import re
from html import unescape
from urllib.parse import quote

import pytest

from callgate.domain.calls import CallKey
from tests.support.ledger_under_test import (
    LedgerUnderTest,
)
from tests.support.visitor import Visitor

HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;; --"


def searched(words: str) -> str:
    """The path of a search."""
    return f"/calls?q={quote(words)}"


def one(key: CallKey) -> str:
    """The path of a call."""
    return f"/calls/{key.task_id}"


def test_words_choose_calls_and_each_value_is_a_link_that_narrows(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    ledger.set_budget(1_000, org_id="narrow")
    dead = ledger.dead("a", org_id="narrow").key
    queued = ledger.queued("b", org_id="narrow", model="o9")

    both = ann.get(searched("org:narrow"))
    only = ann.get(searched("org:narrow state:dead"))

    assert (both.status, only.status) == (200, 200)
    assert all(f'href="{one(key)}"' in both.text for key in (dead, queued))
    assert f'href="{one(queued)}"' not in only.text
    for words in (
        "org:narrow state:queued",
        "org:narrow reason:rate_limited",
        "org:narrow model:o9 provider:openai",
    ):
        names = sorted(words.split())
        links = re.findall(r'href="/calls\?q=([^"]*)"', both.text)
        assert names in [sorted(unescape(link).replace("%3A", ":").split("+")) for link in links]


def test_pages_go_back_and_forth(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Fifty at a time; each call is on one of them."""
    keys = {ledger.queued(f"page {n}", org_id="pages") for n in range(60)}

    first = ann.get(searched("org:pages"))
    (older,) = re.findall(r'href="([^"]*older=[^"]*)"', first.text)
    second = ann.get(unescape(older))
    (newer,) = re.findall(r'href="([^"]*newer=[^"]*)"', second.text)
    back = ann.get(unescape(newer))

    shown = [re.findall(r'href="/calls/([^"?]*\.1)"', page.text) for page in (first, second, back)]
    assert [len(ids) for ids in shown] == [50, 10, 50]
    assert {*shown[0], *shown[1]} == {key.task_id for key in keys}
    assert shown[2] == shown[0]
    assert not re.search(r'href="[^"]*older=', second.text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("colour:red", "there is no word colour: the words are"),
        ("org:a org:b", "org: is given twice"),
        (f'org:"{HOSTILE}', "a space is missing"),
        (f"state:{HOSTILE.split()[0]}", "is none of queued"),
        ("x" * 3_000, "at most 2000 characters"),
    ],
)
def test_wrong_words_are_explained_where_they_were_written(
    ann: Visitor, words: str, said: str
) -> None:
    page = ann.get(searched(words))

    assert page.status == 400
    assert said in unescape(page.alerts)
    assert "callgate calls list" in page.words
    assert "<img src=x" not in page.text


@pytest.mark.parametrize("position", ["older=x", "newer=2026-11-30~y", f"older={quote(HOSTILE)}"])
def test_a_position_that_is_none_says_where_to_go(ann: Visitor, position: str) -> None:
    page = ann.get(f"/calls?q=&{position}")

    assert page.status == 400
    assert "go to the newest" in page.alerts


def test_nothing_found_says_so(ann: Visitor) -> None:
    page = ann.get(searched("org:nobody-at-all"))

    assert page.status == 200
    assert "No call matches." in page.words


def test_a_search_says_how_many_there_are_and_when(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Calls by state where the words ask for what sums do not know, else attempts by outcome."""
    ledger.set_budget(1_000, org_id="counted")
    ledger.dead("a", org_id="counted")
    ledger.succeeded("b", org_id="counted")

    both = ann.get("/calls/scope?q=org%3Acounted")
    dead = ann.get("/calls/scope?q=org%3Acounted+state%3Adead")

    assert "2 calls" in both.words
    assert "Attempts by outcome" in both.words
    assert "1 call" in dead.words
    assert "Calls by state" in dead.words
    (told,) = re.findall(r'data-chart="([^"]*)"', dead.text)
    assert json.loads(unescape(told))["counts"] == {"dead": [1]}
    assert "<html" not in dead.text
    assert ann.get("/calls/scope?q=colour%3Ared").status == 400
