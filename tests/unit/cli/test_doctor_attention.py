"""`callgate doctor`: checks that look into the ledger."""

from __future__ import annotations

import pytest

from callgate.domain.breaker import Health
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By, EndReason
from tests.support.command_line import Shell, given_up
from tests.support.ledger_under_test import LedgerUnderTest, a_failure, a_reserve, open_memory

pytestmark = pytest.mark.long


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def test_the_doctor_names_what_is_amiss(shell: Shell) -> None:
    """One line a check; a broken one does not hide the others."""
    code, out, _ = shell("doctor", "--model", "openai/no-such-model")

    checks = {line.split()[1].rstrip(":"): line.split()[0] for line in out.splitlines()}
    assert code == 1
    assert checks["settings"] == checks["schema"] == checks["tokenizer"] == "OK"
    assert checks["database"] == checks["price"] == "FAIL"


def test_the_doctor_tells_what_waits_for_an_operator(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As warnings: calls go on, or wait for just that."""
    monkeypatch.setattr("callgate.services.ledger_checks._schema", lambda *_: "migrated")
    assert shell("doctor")[1].count("OK   breakers: none is open\nOK   unknown bills: none\n") == 1
    given_up(ledger)
    ref = ledger.answered("refused")
    ledger.settle(a_failure(ref, health=Health.KEY_REFUSED, failure_code="quota"))

    out = shell("doctor")[1]

    assert "     -> " in out
    assert "WARN breakers: open: openai/gpt-4o-mini since" in out
    assert "(quota; only calls of acme; 0 calls wait)" in out
    assert "WARN unknown bills: 1 attempts hold $0.000000100" in out


def test_the_doctor_tells_what_is_paused(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause may have been forgotten."""
    monkeypatch.setattr("callgate.services.ledger_checks._schema", lambda *_: "migrated")
    assert "OK   pauses: nothing is paused\n" in shell("doctor")[1]
    ledger.operations.pause(PauseKey(provider="openai"), by=By("ann", "they leak"))
    ledger.operations.pause(PauseKey(org_id="bolt", is_freeze=True), by=By("ann", "unpaid"))
    ledger.reserve(a_reserve(ledger.queued()))

    (line,) = [x for x in shell("doctor")[1].splitlines() if " pauses: " in x]

    assert line.startswith("WARN pauses: paused: provider openai since ")
    assert "(they leak; 1 calls wait), frozen: organisation bolt since " in line
    assert line.endswith("(unpaid; 0 calls wait)")


def test_the_doctor_tells_how_calls_ended(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator has ended himself is no news."""
    monkeypatch.setattr("callgate.services.ledger_checks._schema", lambda *_: "migrated")
    ledger.operations.end([ledger.queued("mine")], code=EndReason.CANCELLED, message="by hand")
    assert "OK   ended calls: none ended without an answer" in shell("doctor")[1]
    ledger.dead()
    dead = ledger.operations.recent_ends(orgs_max=9, calls_max=9, age_s=60.0)

    lines = shell("doctor")[1].splitlines()

    (at,) = [i for i, line in enumerate(lines) if line.startswith("WARN ended calls: ")]
    reasons = {end.state: end.reason for end in dead}
    assert f"1 dead with {reasons['dead']}, of acme" in lines[at]
    assert "cancelled" not in lines[at]
    assert f"-> {reasons['dead']}: " in lines[at + 1]
    assert "dead-letters redrive" in lines[at + 1]
