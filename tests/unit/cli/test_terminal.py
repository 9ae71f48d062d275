"""Nothing that clients, providers or operators wrote controls a terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli.output import print_error
from callgate.domain.calls import CallKey
from callgate.domain.errors import CallFailed
from callgate.domain.reports import UnprocessableMessage
from tests.support.command_line import (
    ANSWER,
    FAILURE,
    HOSTILE,
    Shell,
    a_request,
    an_answered_call,
    control_chars_in,
)


def test_nothing_is_coloured_in_a_pipe(shell: Shell, dead: CallKey) -> None:
    """Escape sequences are for terminals only."""
    for command in (("calls", "list"), ("calls", "show", dead.task_id), ("audit",)):
        assert "\x1b" not in shell(*command)[1]


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "json"])
def test_nothing_that_is_printed_controls_a_terminal(
    shell: Shell, ledger: MemoryLedger, dead: CallKey, form: tuple[str, ...]
) -> None:
    """Clients, providers and anybody who reaches the broker choose models, errors and reasons."""
    ledger.keep_unprocessable(
        UnprocessableMessage("callgate.call", HOSTILE, HOSTILE.encode(errors="replace"))
    )
    call, error = ledger.tables.calls[dead], replace(FAILURE, message=HOSTILE).to_json()
    call.model = call.call_type = HOSTILE
    call.error = error
    ledger.tables.attempts_of[dead][0].error = error
    listed = [
        ("calls", "list"),
        ("dead-letters", "list"),
        ("dead-letters", "summary"),
        ("costs",),
        ("audit",),
    ]

    for command in [*listed, ("calls", "show", dead.task_id, "--bodies")]:
        _, out, err = shell(*command, *form)

        assert out
        assert control_chars_in(out + err) == set(), command
    assert "52;c;cm0gLXJm" in shell("calls", "show", dead.task_id, *form)[1]


def test_json_holds_what_was_escaped(shell: Shell, ledger: MemoryLedger, dead: CallKey) -> None:
    """A JSON parser gets every character back."""
    ledger.tables.calls[dead].model = HOSTILE

    assert json.loads(shell("calls", "show", dead.task_id, "--json")[1])["model"] == HOSTILE


def test_no_error_controls_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """It quotes the provider."""
    print_error(CallFailed(HOSTILE + "\nerror: forged", "bad_request", 1))

    err = capsys.readouterr().err
    assert (control_chars_in(err), err.count("\n")) == (set(), 1)


def test_an_answer_is_exact_in_a_pipe_and_escaped_on_a_terminal(
    shell: Shell, ledger: MemoryLedger, open_client: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """A program gets what the model wrote; a terminal gets lines and tabs, and escapes for the rest."""
    an_answered_call(ledger, open_client, ANSWER)
    file = tmp_path / "request.json"
    file.write_text(a_request().model_dump_json())

    _, piped, _ = shell("submit", "--file", str(file))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, shown, _ = shell("submit", "--file", str(file))

    assert piped == ANSWER.replace("\ud800", "\\ud800") + "\n"
    assert shown == "Gr\u00fc\u00dfe\t\u200d\nund \\u001b[2J \\u009b31m\\u000d\\ud800\n"
