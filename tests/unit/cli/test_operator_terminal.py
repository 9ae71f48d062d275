"""Nothing that operators see controls a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.support.command_line import HOSTILE, Shell, given_up
from tests.support.ledger_under_test import LedgerUnderTest, open_memory


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "json"])
def test_nothing_that_operators_see_controls_a_terminal(
    shell: Shell, ledger: LedgerUnderTest, form: tuple[str, ...]
) -> None:
    """Models, providers' words and operators' reasons come from elsewhere."""
    memory: Any = ledger.ledger
    ref = given_up(ledger, model=HOSTILE)
    memory.tables.attempts[ref.attempt_id].provider_request_id = HOSTILE
    memory.tables.attempts[ref.attempt_id].anomalies = ("usage_zero", HOSTILE)
    ledger.operations.set_breaker("openai", HOSTILE, "", is_open=True, by=By(HOSTILE, HOSTILE))
    ledger.operations.pause(PauseKey(model=HOSTILE), by=By(HOSTILE, HOSTILE))

    for command in (
        ("unknown", "list"), ("unknown", "summary"), ("breakers", "list"), ("actions", "list"),
        ("pauses",), ("calls", "show", ref.key.task_id),
    ):  # fmt: skip
        code, out, err = shell(*command, *form)

        assert (code, bool(out)) == (0, True)
        assert not {"\x1b", "\u202e", "\ud800"} & set(out + err), command
