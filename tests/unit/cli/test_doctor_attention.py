"""`callgate doctor`: checks that look into the ledger."""

from __future__ import annotations

import pytest

from callgate.domain.breaker import Health
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.support.command_line import Shell, given_up
from tests.support.ledger_under_test import LedgerUnderTest, a_failure, a_reserve, open_memory


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
    monkeypatch.setattr("callgate.services.doctor._schema", lambda *_: "migrated")
    assert shell("doctor")[1].count("OK   breakers: none is open\nOK   unknown bills: none\n") == 1
    given_up(ledger)
    ref = ledger.answered("refused")
    ledger.settle(a_failure(ref, health=Health.KEY_REFUSED, failure_code="quota"))

    out = shell("doctor")[1]

    assert "WARN breakers: open: openai/gpt-4o-mini for acme since" in out
    assert "(quota; 0 calls wait)" in out
    assert "WARN unknown bills: 1 attempts hold $0.000000100" in out


def test_the_doctor_tells_what_is_paused(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause may have been forgotten."""
    monkeypatch.setattr("callgate.services.doctor._schema", lambda *_: "migrated")
    assert "OK   pauses: nothing is paused\n" in shell("doctor")[1]
    ledger.operations.pause(PauseKey(provider="openai"), by=By("ann", "they leak"))
    ledger.operations.pause(PauseKey(org_id="bolt", is_freeze=True), by=By("ann", "unpaid"))
    ledger.reserve(a_reserve(ledger.queued()))

    (line,) = [x for x in shell("doctor")[1].splitlines() if " pauses: " in x]

    assert line.startswith("WARN pauses: paused: provider openai since ")
    assert "(they leak; 1 calls wait), frozen: organisation bolt since " in line
    assert line.endswith("(unpaid; 0 calls wait); see `callgate pauses`")
