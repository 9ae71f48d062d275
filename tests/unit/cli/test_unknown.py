"""`callgate unknown` and `callgate actions`: attempts whose bill is unknown."""

from __future__ import annotations

import json
import os
from datetime import UTC, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from callgate.cli.actions import by_of
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.reports import By
from tests.support.command_line import HOSTILE, Shell, given_up, settled
from tests.support.ledger_under_test import LedgerUnderTest, open_memory

REASON = ("--reason", "invoice 7")


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def test_unknown_bills_are_listed_with_what_they_hold(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    """And so that a program can go on with them."""
    ref = given_up(ledger)

    code, table, err = shell("unknown", "list")
    (fields,) = json.loads(shell("unknown", "list", "--json")[1])

    assert code == 0
    assert str(ref.attempt_id) in table
    assert "worker_lost" in table
    assert "1 attempts hold $0.000000100" in err
    assert (fields["attempt_id"], fields["task_id"]) == (str(ref.attempt_id), ref.key.task_id)
    assert (fields["posted_nano_usd"], fields["error"]["code"]) == (100, "worker_lost")


def test_days_are_whole_and_utc(shell: Shell, ledger: LedgerUnderTest) -> None:
    """The last one too."""
    given_up(ledger)
    day = ledger.now().astimezone(UTC).date()

    def count(*arguments: str) -> int:
        return len(json.loads(shell("unknown", "list", "--json", *arguments)[1]))

    assert count("--since", f"{day}", "--until", f"{day}") == 1
    assert count("--since", f"{day + timedelta(days=1)}") == 0
    assert count("--until", f"{day - timedelta(days=1)}") == 0
    (line,) = json.loads(shell("unknown", "summary", "--json")[1])
    assert line["day"] == f"{day}"
    assert str(day) in shell("unknown", "summary")[1]


def test_a_settlement_names_its_operator(shell: Shell, ledger: LedgerUnderTest) -> None:
    """By whom the environment names; why is kept."""
    ref = given_up(ledger)
    one = ("unknown", "settle", str(ref.attempt_id))

    code, out, err = shell(*one, "--billed-usd", "0.00000006", *REASON)
    again = shell(*one, "--billed-usd", "0.00000006", *REASON, "--json")

    assert (code, again[0]) == (0, 0)
    assert "settled" in out
    assert "1 settled" in err
    assert json.loads(again[1])["attempts"][0]["outcome"] == "unchanged"
    assert settled(ledger, ref) == 60
    (action,) = json.loads(shell("actions", "list", "--limit", "1", "--json")[1])
    assert (action["operator"], action["reason"]) == ("ann@example.org", "invoice 7")
    assert (action["action"], action["subject"]) == ("unknown.settle", str(ref.attempt_id))
    assert action["detail"]["to_nano_usd"] == 60
    assert "ann@example.org" in shell("actions", "list")[1]


def test_an_operator_may_be_named(shell: Shell, ledger: LedgerUnderTest) -> None:
    """For one command."""
    ref = given_up(ledger)

    shell("unknown", "settle", str(ref.attempt_id), "--unbilled", *REASON, "--operator", "bob")

    assert settled(ledger, ref) == 0
    assert ledger.operations.actions(limit=1)[0].by == By("bob", "invoice 7")


@pytest.mark.parametrize(
    ("user", "name"),
    [("carol", "carol"), (" ", f"uid {os.getuid()}"), (None, f"uid {os.getuid()}")],
)
def test_without_a_name_the_systems_user_is_kept(
    monkeypatch: pytest.MonkeyPatch, user: str | None, name: str
) -> None:
    """It is never empty, whatever the system says."""

    def getuser() -> str:
        if user is None:
            raise OSError("no such user")
        return user

    monkeypatch.setattr("getpass.getuser", getuser)
    client: Any = SimpleNamespace(settings=SimpleNamespace(operator=None))

    assert by_of(client, None, "why") == By(name, "why")


def test_changing_a_settlement_needs_the_amount_that_was_seen(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    """Of two operators with the same list the second is told."""
    ref = given_up(ledger)
    one = ("unknown", "settle", str(ref.attempt_id), *REASON)
    shell(*one, "--billed-usd", "0.00000006")

    code, out, _ = shell(*one, "--unbilled")
    assert (code, settled(ledger, ref)) == (1, 60)
    assert "changed" in out
    assert "--seen-usd" in out

    assert shell(*one, "--unbilled", "--seen-usd", "0.00000006")[0] == 0
    assert settled(ledger, ref) == 0


def test_more_than_the_hold_needs_an_option(shell: Shell, ledger: LedgerUnderTest) -> None:
    """A slip of a digit should not cost a budget its day."""
    ref = given_up(ledger)
    one = ("unknown", "settle", str(ref.attempt_id), *REASON, "--billed-usd", "0.0000002")

    assert shell(*one)[0] == 1
    assert settled(ledger, ref) is None
    assert shell(*one, "--more-than-hold")[0] == 0
    assert settled(ledger, ref) == 200


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--unbilled",),
        ("ID",),
        ("ID", "--unbilled", "--billed-usd", "1"),
        ("ID", "--billed-usd", "-1"),
        ("ID", "--billed-usd", "nan"),
        ("ID", "--billed-usd", "1e999999"),
        ("ID", "--billed-usd", "1e-999999"),
        ("ID", "--billed-usd", "1000001"),
        ("ID", "--billed-usd", "0.0000000001"),
        ("ID", "--billed-usd", "0.1234567890000000000000000000000001"),
        ("ID", "--unbilled", "--csv", "x"),
        ("--csv", "there is no such file"),
        ("what", "--unbilled"),
        ("ID", "--unbilled", "--operator", " "),
        ("ID", "--unbilled", "--operator", HOSTILE),
        ("ID", "--unbilled", "--reason", " "),
        ("ID", "--unbilled", "--reason", "x" * 1_001),
    ],
    ids=str,
)
def test_contradictory_options_are_wrong_usage(
    shell: Shell, ledger: LedgerUnderTest, arguments: tuple[str, ...]
) -> None:
    """Before the ledger hears of it."""
    ref = given_up(ledger)
    named = [str(ref.attempt_id) if a == "ID" else a for a in arguments]

    code, out, _ = shell("unknown", "settle", *REASON, *named)

    assert (code, out) == (2, "")
    assert settled(ledger, ref) is None


def test_a_reason_is_required(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Every change of an operator needs one."""
    attempt = str(given_up(ledger).attempt_id)

    assert shell("unknown", "settle", attempt, "--unbilled")[0] == 2
    for command in ("open", "close"):
        assert shell("breakers", command, "--provider", "openai", "--model", "o9")[0] == 2


def test_the_state_stays_what_it_was(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Settling a bill says nothing about the answer."""
    ref = given_up(ledger)

    shell("unknown", "settle", str(ref.attempt_id), "--unbilled", *REASON)

    last = ledger.view(ref).last
    assert last is not None
    assert last.status is AttemptStatus.UNKNOWN
    assert ledger.state(ref.key) is CallState.DEAD
