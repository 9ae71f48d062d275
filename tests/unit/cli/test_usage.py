"""Exit codes, wrong usage, and names of commands."""

from __future__ import annotations

import json

import pytest

from callgate.cli import run
from callgate.client import Client
from callgate.domain.errors import ConfigurationError
from tests.support.command_line import Shell


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit",),
        ("submit", "--file", "-", "--org", "acme"),
        ("budgets", "set", "acme"),
        ("budgets", "set", "acme", "--daily-usd", "-1"),
        ("budgets", "set", "acme", "--daily-usd", "nan"),
        ("budgets", "set", "acme", "--daily-usd", "0.0000000001"),
        ("budgets", "set", "two words", "--daily-usd", "1"),
        ("dead-letters", "discard"),
        ("dead-letters", "redrive", "--rate", "fast"),
        ("dead-letters", "redrive", "--id", "x"),
        ("calls", "list", "--limit", "0"),
        ("nonsense",),
    ],
)
def test_wrong_usage_ends_with_two(shell: Shell, arguments: tuple[str, ...]) -> None:
    """What cannot be meant is refused before anything is asked of the ledger."""
    code, out, err = shell(*arguments)

    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_settings_that_cannot_work_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    """A service manager must be able to tell them from an outage."""

    def open_client() -> Client:
        raise ConfigurationError("CALLGATE_X: wrong")

    code = run(["costs"], open_client)

    assert code == 2
    assert capsys.readouterr() == ("", "error: configuration_error: CALLGATE_X: wrong\n")


def test_wrong_usage_is_one_line_that_says_what_is_missing(shell: Shell) -> None:
    """And where the help is: `-h`, everywhere."""
    code, _, err = shell("budgets", "set", "acme")

    assert code == 2
    assert err == (
        "error: wrong_usage: Invalid value: how much? give --daily-usd or --monthly-usd, or both"
        " (callgate budgets set -h says more)\n"
    )
    for words in ((), ("budgets",), ("budgets", "set")):
        assert "Usage: " in shell(*words, "-h")[1]
        assert shell(*words, "-h") == shell(*words, "--help")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("calls", "show", "what"), "invalid_request"),
        (("calls", "list", "--limit", "0"), "wrong_usage"),
        (("calls", "list", "--nonsense"), "wrong_usage"),
        (("nonsense",), "wrong_usage"),
    ],
)
def test_errors_are_json_where_answers_are(
    shell: Shell, arguments: tuple[str, ...], code: str
) -> None:
    """A script parses stdout in both cases, and people find the line on stderr."""
    without, said = shell(*arguments)[0], shell(*arguments, "--json")

    assert said[0] == without
    assert json.loads(said[1])["error"]["code"] == code
    assert said[2]


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends a command with 130, as shells expect, and without a traceback."""

    def open_client() -> Client:
        raise KeyboardInterrupt

    code = run(["costs"], open_client)

    assert code == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("budget", "show", "acme"), ("budgets", "show", "acme")),
        (("dead", "list"), ("dead-letters", "list")),
        (("dead", "stats"), ("dead-letters", "summary")),
        (("dead-letters", "stats"), ("dead-letters", "summary")),
        (("purge", "--older-than-days", "1"), ("retention", "purge", "--older-than-days", "1")),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_an_old_name_runs_the_new_command_and_says_so(
    shell: Shell, old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    """For one release. stdout is the same, so scripts go on working."""
    code, out, err = shell(*new, "--json")

    old_code, old_out, old_err = shell(*old, "--json")

    note, *rest = old_err.splitlines(keepends=True)
    assert (old_code, old_out, "".join(rest)) == (code, out, err)
    names = " ".join(word for word in new[:2] if word not in ("show", "list"))
    assert note.startswith("`callgate ")
    assert note.endswith(f" was renamed: use `callgate {names}`\n")


def test_help_shows_new_names_only(shell: Shell) -> None:
    """The old ones run, and are hidden."""
    code, out, _ = shell("--help")

    commands = {line.strip("│ ").split(" ")[0] for line in out.splitlines()}
    assert code == 0
    assert {"budgets", "dead-letters", "retention"} <= commands
    assert commands.isdisjoint({"budget", "dead", "purge"})


@pytest.mark.parametrize(
    "command",
    [
        *("submit", "calls list", "calls show", "calls cancel", "budgets set", "budgets show"),
        *("costs", "estimate", "audit", "unknown list", "unknown summary", "unknown settle"),
        *("breakers list", "breakers open", "breakers close", "actions list", "doctor"),
        *("dead-letters list", "dead-letters show", "dead-letters summary"),
        *("dead-letters redrive", "dead-letters discard", "retention purge"),
        *(f"redrives {name}" for name in ("list", "show", "start", "pause", "resume", "abort")),
        *("tenants grant", "tenants revoke", "tenants list"),
    ],
)
def test_help_describes_the_json_of_a_command(shell: Shell, command: str) -> None:
    """A script's author needs no source."""
    code, out, _ = shell(*command.split(), "--help")

    assert code == 0
    assert "JSON: " in out


@pytest.mark.parametrize(
    "command",
    [
        ("calls", "cancel", "00000000-0000-8000-8000-000000000000"),
        ("dead-letters", "discard", "--yes"),
        ("breakers", "open", "--provider", "openai", "--model", "gpt-4o-mini"),
        ("unknown", "settle", "00000000-0000-8000-8000-000000000000", "--unbilled"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
@pytest.mark.parametrize("reason", [" ", "x" * 1_001, "a\x1b[2Jb"], ids=["empty", "long", "escape"])
def test_every_command_refuses_a_reason_that_cannot_be_stored(
    shell: Shell, command: tuple[str, ...], reason: str
) -> None:
    code, out, err = shell(*command, "--reason", reason)

    assert (code, out) == (2, "")
    assert "--reason" in err
