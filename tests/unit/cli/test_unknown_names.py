"""Organisations and call types that nothing knows are pointed out: they may be misspelt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.client import Client
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import CallTypePolicy, Catalogue
from tests.support.command_line import Shell, client_maker

NO_ORG = "organisation acmee has no call yet: check that the name is right"
NO_TYPE = (
    "call type extractoin is not in the catalogue, so the default's rules apply: it has extraction"
)


@pytest.fixture
def open_client(ledger: MemoryLedger) -> Callable[[], Client]:
    """Makes clients whose catalogue names a call type."""
    return client_maker(ledger, Catalogue(call_types={"extraction": CallTypePolicy()}))


@pytest.mark.parametrize(
    "command",
    [
        ("calls", "list"),
        ("dead-letters", "list"),
        ("dead-letters", "discard", "--reason", "x", "--yes"),
        ("costs",),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_an_empty_answer_says_whose_name_is_new(
    shell: Shell, dead: CallKey, command: tuple[str, ...]
) -> None:
    """An empty list for a misspelt name looks like good news. Known names say nothing."""
    of_org = shell(*command, "--org", "acmee")[2]
    of_type = shell(*command, "--org", "acme", "--call-type", "extractoin")[2]
    known = shell(*command, "--org", "acme", "--call-type", "extraction")[2]

    assert NO_ORG in of_org
    assert NO_TYPE in of_type
    assert "check that" not in known
    assert "not in the catalogue" not in known


def test_a_budget_of_a_new_name_is_set_and_pointed_out(shell: Shell, dead: CallKey) -> None:
    """It may be set before the first call, so it is no error."""
    code, _, err = shell("budgets", "set", "acmee", "--daily-usd", "1", "--call-type", "extractoin")

    assert code == 0
    assert NO_ORG in err
    assert NO_TYPE in err
    assert shell("budgets", "set", "acme", "--daily-usd", "1")[2] == ""


def test_a_submission_of_a_new_call_type_is_pointed_out(shell: Shell) -> None:
    """It is accepted with the rules of the default, unless the catalogue takes only those it names."""
    options = ("--org", "acme", "--model", "gpt-4o-mini", "--prompt", "hi", "--no-wait")

    code, _, err = shell(
        "submit", *options, "--call-type", "extractoin", "--max-output-tokens", "5"
    )

    assert (code, err) == (0, f"{NO_TYPE}\n")
