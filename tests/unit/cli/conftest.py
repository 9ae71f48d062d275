"""A command line over a ledger in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli import run
from callgate.client import Client
from callgate.domain.calls import CallKey
from tests.support.command_line import Shell, a_dead_call, client_maker
from tests.support.ledger_under_test import LedgerUnderTest


@pytest.fixture
def ledger() -> MemoryLedger:
    """An empty ledger."""
    return MemoryLedger()


@pytest.fixture
def open_client(ledger: MemoryLedger | LedgerUnderTest) -> Callable[[], Client]:
    """Makes clients of that ledger."""
    memory = ledger.ledger if isinstance(ledger, LedgerUnderTest) else ledger
    assert isinstance(memory, MemoryLedger)
    return client_maker(memory)


@pytest.fixture
def shell(
    open_client: Callable[[], Client],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    """Runs a command line: its exit code, stdout, stderr."""
    monkeypatch.setenv("CALLGATE_OPERATOR", "ann@example.org")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, open_client)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def dead(ledger: MemoryLedger, open_client: Callable[[], Client]) -> CallKey:
    """A call that failed for good."""
    return a_dead_call(ledger, open_client)
