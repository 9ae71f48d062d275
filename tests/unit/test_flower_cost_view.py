"""What an address of the page of costs means, and where its links lead."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.errors import InvalidRequest
from callgate.domain.sums import DIMENSIONS, CostLine, Measures
from worker.flower.cost_view import FORMULA, NONE, CostView, csv_lines, share_of, total_of, view_of
from worker.flower.periods import span_of

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
TODAY = span_of("today", "", "", now=NOW, zone=ZoneInfo("UTC"))


def viewed(**words: str) -> CostView:
    """The view of an address."""
    return view_of(lambda name: words.get(name, ""), TODAY)


def again(view: CostView) -> CostView:
    """The view of the address of a view."""
    return view_of(lambda name: view.words.get(name, ""), TODAY)


def test_a_view_shows_who_spent_and_of_one_organisation_on_what() -> None:
    assert viewed().by == ("org_id",)
    assert viewed(org="acme").by == ("call_type", "provider", "model")
    assert viewed(org="acme", type="a", provider="b", model="c").by == ("kind", "outcome")
    assert viewed(by="model,org").by == ("org_id", "model")
    assert (viewed().which.since, viewed().which.until) == (TODAY.since, TODAY.until)


def test_a_line_leads_to_what_it_consists_of() -> None:
    """Grouped by what is left; without a tier is a value too."""
    view = viewed(by="org,tier")

    inner = view.narrowed("org_id", "acme").narrowed("tier", None)

    assert (inner.which.org_id, inner.which.tier) == ("acme", "")
    assert inner.by == ("call_type", "provider", "model")
    assert inner.words["tier"] == NONE
    assert again(inner) == inner
    assert inner.widened("tier").which.tier is None
    assert view.grouped("tier").by == ("org_id",)
    assert view.grouped("model").by == ("org_id", "model", "tier")
    assert viewed().grouped("org_id").by == ("org_id",), "by nothing is no view"


@given(
    org=st.text(max_size=20), model=st.text(max_size=20), by=st.sets(st.sampled_from(DIMENSIONS))
)
def test_an_address_is_a_view(org: str, model: str, by: set[str]) -> None:
    """What a view writes into its address is what it is."""
    view = viewed(org=org.replace("\0", ""), model=model.replace("\0", ""))
    for name in sorted(by):
        view = view.grouped(name)

    assert again(view) == view


@pytest.mark.parametrize("words", [{"by": "colour"}, {"org": "x" * 129}, {"model": "a\0b"}])
def test_other_addresses_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        viewed(**words)


def a_line(call_type: str, posted: int) -> CostLine:
    """What a call type used."""
    used = Measures(attempts=1, posted_nano_usd=posted)
    return CostLine(used, 1, 0, 0, 0, call_type=call_type)


@pytest.mark.parametrize("first", FORMULA)
def test_no_cell_of_a_file_is_a_formula(first: str) -> None:
    """Names come from tenants; amounts are numbers."""
    name = f'{first}cmd|"x",\n1'

    text = "".join(csv_lines([a_line(name, -5)], ("call_type",)))

    (row,) = csv.DictReader(io.StringIO(text))
    assert row["call_type"].replace("\r\n", "\n") == f"'{name}".replace("\r\n", "\n")
    assert (row["posted_nano_usd"], row["succeeded"]) == ("-5", "1")


def test_totals_are_those_of_the_lines() -> None:
    total = total_of([a_line("a", 3), a_line("b", 4)])

    assert (total.used.posted_nano_usd, total.used.attempts, total.succeeded) == (7, 2, 2)
    assert total_of([]).used == Measures()
    assert (share_of(1, 3), share_of(0, 0)) == ("33 %", "")
