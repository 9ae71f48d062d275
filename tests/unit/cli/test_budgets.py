"""`callgate budgets`, `callgate costs` and `callgate audit`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import CallKey
from callgate.domain.sums import CostLine, Measures
from tests.support.command_line import Shell


def test_a_budget_is_set_in_usd_and_shown(shell: Shell) -> None:
    """Amounts are exact decimals; JSON carries nano-USD."""
    code, _, _ = shell("budgets", "set", "acme", "--daily-usd", "5", "--monthly-usd", "0.000000001")

    shown = json.loads(shell("budgets", "show", "acme", "--json")[1])

    assert code == 0
    assert [(b["scope"], b["window"], b["limit_nano_usd"]) for b in shown] == [
        ("org", "day", 5 * NANO_PER_USD),
        ("org", "month", 1),
    ]
    assert shown[0]["left_nano_usd"] == 5 * NANO_PER_USD


def test_budgets_are_removed(shell: Shell, ledger: MemoryLedger) -> None:
    """Of one scope and, if asked, of one window; with who and why. What is not there is an error."""
    shell("budgets", "set", "acme", "--daily-usd", "5", "--monthly-usd", "9")
    shell("budgets", "set", "acme", "--daily-usd", "2", "--call-type", "extraction")
    remove = ("budgets", "remove", "acme", "--reason", "they left", "--yes")
    left = lambda: [(b.scope, b.window) for b in ledger.budgets("acme")]  # noqa: E731

    assert shell("budgets", "remove", "acme", "--reason", "x")[0] == 2
    removed = json.loads(shell(*remove, "--per", "month", "--json")[1])
    assert [(b["scope"], b["window"]) for b in removed] == [("org", "month")]
    assert left() == [("call_type:extraction", "day"), ("org", "day")]
    assert shell(*remove)[0] == 0
    code, _, err = shell(*remove)
    assert (code, "no budgets" in err) == (1, True)
    _, _, last = shell(*remove, "--call-type", "extraction")

    assert left() == []
    assert "acme has no budget now" in last
    action = ledger.actions(limit=1)[0]
    assert (action.action, action.by.reason) == ("budget.remove", "they left")


def test_a_new_limit_keeps_the_time_zone(shell: Shell) -> None:
    """Raising a limit must not move the days of a budget."""
    berlin = ("--timezone", "Europe/Berlin", "--call-type", "extraction")
    shell("budgets", "set", "acme", "--daily-usd", "5", *berlin)

    _, out, _ = shell(
        "budgets", "set", "acme", "--daily-usd", "6", "--call-type", "extraction", "--json"
    )

    (figures,) = json.loads(out)
    assert (figures["scope"], figures["timezone"]) == ("call_type:extraction", "Europe/Berlin")


def test_costs_show_how_long_answers_took(
    shell: Shell, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what they cost."""
    used = Measures(attempts=3, calls=3, latency_ms=2_436, timed=3)
    line = CostLine(used, 3, 0, 0, 0, org_id="acme", call_type="x", provider="p", model="m")
    monkeypatch.setattr(ledger, "costs", lambda which, by: [line])

    heading, row = shell("costs")[1].splitlines()

    assert heading.split()[-2:] == ["mean", "ms"]
    assert row.split()[-1] == "812"


def test_a_clean_audit_ends_with_zero(shell: Shell, dead: CallKey) -> None:
    """The figures of a ledger that was used through its methods equal their rows."""
    code, out, _ = shell("audit", "--json")

    assert (code, json.loads(out)["drift_nano_usd"]) == (0, 0)


def test_an_audit_that_finds_drift_ends_with_one(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """A monitor needs no more than the exit code."""
    (budget_id, figures), *_ = ledger.tables.budgets.items()
    ledger.tables.budgets[budget_id] = replace(figures, spent_nano_usd=7)

    code, out, _ = shell("audit", "--json")

    assert code == 1
    assert (json.loads(out)["is_clean"], json.loads(out)["drift_nano_usd"]) == (False, 7)
    assert "WRONG" in shell("audit")[1]
