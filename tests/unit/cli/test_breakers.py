"""`callgate breakers`: list, open and close."""

from __future__ import annotations

import json

import pytest

from tests.support.command_line import Shell
from tests.support.ledger_under_test import LedgerUnderTest, open_memory


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


REASON = ("--reason", "invoice 7")


def test_a_breaker_is_opened_and_closed_by_hand(shell: Shell, ledger: LedgerUnderTest) -> None:
    """With who and why; the default is the provider's own key."""
    names = ("--provider", "openai", "--model", "gpt-4o-mini")
    code, opened, _ = shell("breakers", "open", *names, "--reason", "they are down", "--json")
    assert code == 0
    assert json.loads(opened)["credential"] == ""
    (listed,) = json.loads(shell("breakers", "list", "--json")[1])
    assert (listed["is_open"], listed["reason"]) == (True, "they are down")
    table = shell("breakers", "list")[1]
    assert "they are down" in table
    assert "when closed by hand" in table
    assert shell("breakers", "list", "--model", "o9", "--json")[1] == "[]\n"

    code, closed, _ = shell("breakers", "close", *names, *REASON, "--operator", "bob")
    assert code == 0
    assert "the shared one" in closed

    done = [(a.action, a.by.operator) for a in ledger.operations.actions(limit=2)]
    assert done == [("breaker.close", "bob"), ("breaker.open", "ann@example.org")]


def test_a_key_of_an_organisation_has_a_breaker_of_its_own(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    """One that is new is said to be: it may be a slip."""
    names = ("--provider", "openai", "--model", "gpt-4o-mini", "--credential", "acme")

    code, out, err = shell("breakers", "open", *names, *REASON)

    assert code == 0
    assert "openai/gpt-4o-mini with the key of acme" in out
    assert "no call has used" in err
    (line,) = [b for b in ledger.operations.breakers() if b.is_open]
    assert line.credential == "acme"


def test_closing_says_whose_breakers_it_closed(shell: Shell) -> None:
    """Closing the shared one closes those of every organisation too."""
    names = ("--provider", "openai", "--model", "gpt-4o-mini")
    for org in ((), ("--org", "acme"), ("--org", "bolt")):
        shell("breakers", "open", *names, *org, *REASON)
    shell("breakers", "open", "--provider", "openai", "--model", "o9", "--org", "acme", *REASON)

    def closed(*org: str) -> list[str]:
        out = shell("breakers", "close", *names, *org, *REASON, "--json")[1]
        return list(json.loads(out)["closed"])

    assert closed("--org", "bolt") == ["bolt"]
    assert closed() == ["", "acme"]
    assert closed() == []
    assert "none was open" in shell("breakers", "close", *names, *REASON)[1]


@pytest.mark.parametrize(
    ("command", "provider", "error"),
    [("open", "opemai", "unknown_provider"), ("close", "openai", "invalid_request")],
)
def test_a_misspelt_breaker_is_refused(
    shell: Shell, ledger: LedgerUnderTest, command: str, provider: str, error: str
) -> None:
    """A slip must not open nothing, or close nothing, and say that all is well."""
    before = ledger.operations.actions(limit=9)

    code, _, err = shell("breakers", command, "--provider", provider, "--model", "o9", *REASON)

    assert code == 1
    assert err.startswith(f"error: {error}: ")
    assert ledger.operations.actions(limit=9) == before
