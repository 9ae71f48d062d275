"""Calls a page at a time, by filter, and how many there are; on both ledgers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from callgate.domain.call_pages import CallPage, PageOf, Position
from callgate.domain.calls import CallKey, CallState, WaitReason
from callgate.domain.reports import CallFilter
from tests.support.ledger_under_test import (
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)

EVERYTHING = CallFilter()


def keys_of(page: CallPage) -> list[CallKey]:
    """Which calls a page shows."""
    return [view.key for view in page.views]


@pytest.fixture
def calls(ledger: LedgerUnderTest) -> list[CallKey]:
    """Seven calls, oldest first, of different ages; two of them came in one batch."""
    made = []
    for number in range(5):
        made.append(ledger.queued(f"call {number}"))
        ledger.age(60)
    batch = ledger.submit(a_submission("twin 1"), a_submission("twin 2"))
    return made + sorted(s.key for s in batch)


def test_pages_hold_every_call_once_newest_first(
    ledger: LedgerUnderTest, calls: list[CallKey]
) -> None:
    found, position = [], None
    for _ in range(4):
        page = ledger.operations.call_page(EVERYTHING, PageOf(2, older_than=position))
        found += keys_of(page)
        position = page.older
        if position is None:
            break

    assert found == calls[::-1]
    assert position is None


def test_the_page_before_is_the_page_one_came_from(
    ledger: LedgerUnderTest, calls: list[CallKey]
) -> None:
    newest = ledger.operations.call_page(EVERYTHING, PageOf(2))
    middle = ledger.operations.call_page(EVERYTHING, PageOf(2, older_than=newest.older))
    oldest = ledger.operations.call_page(EVERYTHING, PageOf(3, older_than=middle.older))

    assert newest.newer is None
    assert oldest.older is None
    assert keys_of(oldest) == calls[2::-1]
    back = ledger.operations.call_page(EVERYTHING, PageOf(2, newer_than=oldest.newer))
    assert keys_of(back) == keys_of(middle)
    assert back.newer is not None
    first = ledger.operations.call_page(EVERYTHING, PageOf(2, newer_than=back.newer))
    assert keys_of(first) == keys_of(newest)
    assert first.newer is None


def test_the_oldest_page_leads_back_to_newer_calls(
    ledger: LedgerUnderTest, calls: list[CallKey]
) -> None:
    """Also one that has become empty."""
    view = ledger.view(calls[0])
    last = Position(view.created_at, view.key)

    page = ledger.operations.call_page(EVERYTHING, PageOf(2, older_than=last))

    assert (keys_of(page), page.older) == ([], None)
    back = ledger.operations.call_page(EVERYTHING, PageOf(2, newer_than=page.newer))
    assert keys_of(back) == [calls[2], calls[1]]


def test_a_search_stops_after_so_many_calls_and_goes_on_there(
    ledger: LedgerUnderTest, calls: list[CallKey]
) -> None:
    """A filter that matches hardly anything must not read the whole ledger."""
    meant = ledger.queued("other", model="rare")
    ledger.age(3_600)
    for number in range(5):
        ledger.queued(f"later {number}")
    which = CallFilter(model="rare")

    page = ledger.operations.call_page(which, PageOf(2, looked_max=4))

    assert (keys_of(page), page.older is not None) == ([], True)
    assert page.looked_to is not None
    assert page.older is not None
    assert page.older.created_at == page.looked_to
    onward = ledger.operations.call_page(which, PageOf(2, older_than=page.older, looked_max=50))
    assert (keys_of(onward), onward.older, onward.looked_to) == ([meant], None, None)
    back = ledger.operations.call_page(which, PageOf(2, newer_than=onward.newer, looked_max=2))
    assert (keys_of(back), back.newer is not None, back.looked_to is not None) == ([], True, True)


def test_a_full_page_says_nothing_of_where_it_stopped(
    ledger: LedgerUnderTest, calls: list[CallKey]
) -> None:
    page = ledger.operations.call_page(CallFilter(org_id=ORG), PageOf(2, looked_max=3))

    assert (len(page.views), page.looked_to) == (2, None)


def named(ledger: LedgerUnderTest) -> dict[str, CallKey]:
    """One call in each state, by what is special about it."""
    ledger.set_budget(10 * LIMIT)
    ledger.set_budget(LIMIT, org_id="zeta")
    made = {
        "dead": ledger.dead("dead").key,
        "retried": ledger.waiting("retried", due_in_s=600.0).key,
        "rejected": ledger.rejected("rejected"),
        "running": ledger.running("running").key,
        "succeeded": ledger.succeeded("succeeded").key,
        "queued": ledger.queued("queued"),
        "of another type": ledger.queued("typed", call_type="triage"),
        "of another model": ledger.dead("modelled", model="o9").key,
        "of another provider": ledger.queued("provided", provider="azure"),
        "of another organisation": ledger.dead("dead", org_id="zeta").key,
    }
    key = ledger.queued("too expensive", org_id="zeta")
    ledger.reserve(a_reserve(key, LIMIT + 1))
    made["refused"] = key
    key = ledger.queued("traced")
    (claimed,) = ledger.reserve(a_reserve(key, trace_id="t-1"))
    ledger.record(an_answer(claimed.ref))  # type: ignore[union-attr]
    ledger.settle(a_success(claimed.ref))  # type: ignore[union-attr]
    made["traced"] = key
    return made


FINGERPRINTED = {"dead", "retried", "of another model", "of another organisation"}
FILTERS: dict[str, tuple[CallFilter, set[str]]] = {
    "state": (
        CallFilter(state=CallState.DEAD),
        {"dead", "of another model", "of another organisation"},
    ),
    "state of one": (CallFilter(ORG, CallState.DEAD), {"dead", "of another model"}),
    "running": (CallFilter(state=CallState.RUNNING), {"running"}),
    "queued": (
        CallFilter(ORG, CallState.QUEUED),
        {"queued", "of another type", "of another provider"},
    ),
    "waiting": (CallFilter(state=CallState.WAITING), {"retried"}),
    "succeeded": (CallFilter(state=CallState.SUCCEEDED), {"succeeded", "traced"}),
    "wait reason": (CallFilter(reason="retry"), {"retried"}),
    "end reason": (CallFilter(reason="cancelled"), {"rejected"}),
    "reason of one": (CallFilter("zeta", reason="budget_too_small"), {"refused"}),
    "reason of nobody": (CallFilter(ORG, reason="budget_too_small"), set()),
    "reason and another state": (CallFilter(reason="retry", state=CallState.DEAD), set()),
    "both reasons": (CallFilter(wait_reason=WaitReason.RETRY, end_reason="cancelled"), set()),
    "trace": (CallFilter(trace_id="t-1"), {"traced"}),
    "trace of one": (CallFilter("zeta", trace_id="t-1"), set()),
    "trace and kind": (CallFilter(trace_id="t-1", kind="first"), {"traced"}),
    "trace and another kind": (CallFilter(trace_id="t-1", kind="repair"), set()),
    "type": (CallFilter(call_type="triage"), {"of another type"}),
    "provider": (CallFilter(provider="azure"), {"of another provider"}),
    "model": (CallFilter(model="o9"), {"of another model"}),
    "model and state": (CallFilter(ORG, CallState.DEAD, model="o9"), {"of another model"}),
    "outcome": (
        CallFilter(outcome="failed"),
        {"dead", "retried", "of another model", "of another organisation"},
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_page_and_a_count_hold_what_a_filter_means(ledger: LedgerUnderTest, name: str) -> None:
    which, meant = FILTERS[name]
    made = named(ledger)

    page = ledger.operations.call_page(which, PageOf())
    count = ledger.operations.count_calls(which)

    assert {n for n, key in made.items() if key in keys_of(page)} == meant
    assert (len(page.views), page.older, page.newer) == (len(meant), None, None)
    assert (count.calls, count.is_more, count.looked_to) == (len(meant), False, None)
    assert [v.key for v in ledger.operations.calls(which, limit=100)] == keys_of(page)


def test_a_fingerprint_names_what_failed_alike(ledger: LedgerUnderTest) -> None:
    """Also what is tried again for it; not what has succeeded since."""
    made = named(ledger)
    (group, *_) = ledger.operations.dead_groups(CallFilter(org_id="zeta"))
    which = CallFilter(error_fingerprint=group.error_fingerprint)

    def found(which: CallFilter) -> set[str]:
        page = ledger.operations.call_page(which, PageOf())
        return {name for name, key in made.items() if key in keys_of(page)}

    assert found(which) == FINGERPRINTED
    assert found(replace(which, org_id="zeta")) == {"of another organisation"}
    assert found(replace(which, state=CallState.WAITING)) == {"retried"}


def test_a_period_has_its_beginning_and_not_its_end(
    ledger: LedgerUnderTest, calls: list[CallKey]
) -> None:
    at = [ledger.view(key).created_at for key in calls]
    which = CallFilter(since=at[1], until=at[3])

    assert keys_of(ledger.operations.call_page(which, PageOf())) == [calls[2], calls[1]]
    assert ledger.operations.count_calls(which).calls == 2
    later = CallFilter(since=at[-1] + timedelta(seconds=1))
    assert ledger.operations.call_page(later, PageOf()).views == ()


def test_a_call_is_found_by_its_id_and_generation(ledger: LedgerUnderTest) -> None:
    first = ledger.dead("again").key
    second = ledger.queued("again", force=True)
    which = CallFilter(call_ids=(first.call_id,))

    both = ledger.operations.call_page(which, PageOf())
    one = ledger.operations.call_page(replace(which, generation=1), PageOf())

    assert first.call_id == second.call_id
    assert keys_of(both) == [second, first]
    assert keys_of(one) == [first]


def test_views_are_read_without_bodies(ledger: LedgerUnderTest) -> None:
    """In the order asked for; None where there is none."""
    key = ledger.succeeded().key
    missing = CallKey(key.call_id, 9)

    (nothing, view) = ledger.operations.views([missing, key])

    assert nothing is None
    assert view == ledger.view(key)


def test_a_chart_of_a_state_counts_calls_by_their_age(ledger: LedgerUnderTest) -> None:
    ledger.dead("old")
    ledger.age(3_600)
    ledger.dead("new")
    ledger.dead("new too")

    chart = ledger.operations.call_chart(CallFilter(state=CallState.DEAD), ledger.now())

    assert not chart.is_of_attempts
    assert set(chart.counts) == {"dead"}
    assert sorted(chart.counts["dead"].values()) == [1, 2]
    assert chart.step_s == 60


def test_a_chart_of_a_model_counts_attempts_from_the_sums(ledger: LedgerUnderTest) -> None:
    """Whether they are folded or not; what collapsed is no attempt."""
    ledger.succeeded("one")
    ledger.submit(a_submission("one"))
    ledger.sums.fold_sums(limit=100)
    ledger.dead("two")
    ledger.succeeded("three", model="o9")

    chart = ledger.operations.call_chart(CallFilter(model="gpt-4o-mini"), ledger.now())

    assert chart.is_of_attempts
    counts = {name: sum(steps.values()) for name, steps in chart.counts.items()}
    assert counts == {"succeeded": 1, "failed": 1}
    assert chart.step_s == 3_600


def test_a_chart_of_nothing_has_no_steps(ledger: LedgerUnderTest) -> None:
    for which in (CallFilter(org_id="nobody"), CallFilter(state=CallState.DEAD)):
        assert ledger.operations.call_chart(which, ledger.now()).counts == {}
