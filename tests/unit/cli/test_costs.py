"""`callgate costs` and the times of `calls list`: what is asked for, and what is said about what is not known."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import CallState
from tests.support.command_line import Shell
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_loss,
    open_memory,
)


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in which something was used: known, and not known."""
    ledger = open_memory()
    ledger.succeeded("one", 60)
    ledger.succeeded("two", 50, call_type="triage")
    ledger.settle(a_loss(ledger.running("lost"), next_state=CallState.DEAD))
    return ledger


def memory(ledger: LedgerUnderTest) -> MemoryLedger:
    """The ledger itself."""
    assert isinstance(ledger.ledger, MemoryLedger)
    return ledger.ledger


def test_what_an_organisation_spent_today_is_one_command(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the time zone of its budgets, which is named; grouped by what it was spent on, with a total."""
    ledger.operations.set_budget(ORG, ORG_SCOPE, Window.DAY, 1_000, "Asia/Kathmandu")
    at = ledger.now()
    monkeypatch.setattr("callgate.cli.periods.datetime", _Clock(at))

    code, out, err = shell("costs", "--org", ORG, "--today")

    heading, *rows, total = out.splitlines()
    assert code == 0
    assert "today in the time zone Asia/Kathmandu" in err
    assert {"call", "type", "spent", "saved", "retries", "failures", "repairs", "unknown"} <= set(
        heading.split()
    )
    assert [row.split()[1] for row in rows] == ["extraction", "triage"]
    assert "$0.000000210" in total
    assert "+?" in rows[0], "tokens of a lost attempt are not known"
    assert "the tokens of 1 paid attempts are not known" in err


def test_another_day_shows_nothing_of_today(shell: Shell, ledger: LedgerUnderTest) -> None:
    """By when an attempt began, in whole quarter hours."""
    now = ledger.now()
    day = timedelta(days=1)

    def spent(since: datetime, until: datetime) -> int:
        times = ("--since", since.isoformat(), "--until", until.isoformat())
        lines = json.loads(shell("costs", "--json", *times)[1])
        return sum(line["posted_nano_usd"] for line in lines)

    assert (spent(now - day, now + day), spent(now - 2 * day, now - day)) == (210, 0)
    assert "nothing was used" in shell("costs", "--until", (now - day).isoformat())[2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--by", "outcome"), {"succeeded": 110, "unknown": 100}),
        (("--by", "outcome", "--outcome", "unknown"), {"unknown": 100}),
        (("--by", "kind,outcome", "--call-type", "triage"), {"first": 50}),
        (("--by", "call-type"), {"extraction": 160, "triage": 50}),
        (("--by", "org"), {ORG: 210}),
        (("--by", "project"), {None: 210}),
    ],
)
def test_costs_are_grouped_by_what_is_named(
    shell: Shell, ledger: LedgerUnderTest, options: tuple[str, ...], expected: dict[str, int]
) -> None:
    """And filtered."""
    code, out, _ = shell("costs", "--json", *options)

    lines = json.loads(out)
    assert code == 0
    assert {next(iter(line.values())): line["posted_nano_usd"] for line in lines} == expected
    assert all(line["latency_ms_mean"] in (40, None) for line in lines)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--by", "colour"), "is not one of day, org, project"),
        (("--today", "--since", "2026-11-30T18:00Z"), "--today, or --since"),
        (("--since", "2026-11-30T18:00Z", "--until", "2026-11-30T17:00Z"), "must be before"),
        (("--since", "2026-11-30T18:00"), "has no time zone"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    shell: Shell, options: tuple[str, ...], complaint: str
) -> None:
    """With a reason."""
    code, _, err = shell("costs", *options)

    assert code == 2
    assert complaint in " ".join(err.replace("│", " ").split())


def test_calls_are_listed_with_their_time_type_and_cost(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    """And chosen by their time, and by the outcome of an attempt."""
    now, day = ledger.now(), timedelta(days=1)

    heading, *rows = shell("calls", "list", "--outcome", "unknown")[1].splitlines()

    assert {"created", "org", "type", "model", "cost"} <= set(heading.split())
    assert len(rows) == 1
    assert f"{now:%Y-%m-%d}" in rows[0]
    assert "$0.000000100" in rows[0]
    listed = json.loads(shell("calls", "list", "--json", "--since", (now - day).isoformat())[1])
    assert len(listed) == 3
    assert "no calls" in shell("calls", "list", "--until", (now - day).isoformat())[2]


class _Clock:
    """A `datetime` whose `now` is another one."""

    def __init__(self, at: datetime) -> None:
        self.now = lambda zone=UTC: at.astimezone(zone)
