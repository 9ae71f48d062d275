"""`callgate pause`, `resume`, `pauses`, `freeze` and `unfreeze`."""

from __future__ import annotations

import json

import pytest

from callgate.domain.calls import CallState
from tests.support.command_line import Shell
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_reserve,
    open_memory,
)

REASON = ("--reason", "the provider leaks")


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def paused(ledger: LedgerUnderTest) -> str:
    """The id of a call that waits because it is paused."""
    key = ledger.queued()
    ledger.reserve(a_reserve(key))
    assert ledger.state(key) is CallState.WAITING
    return key.task_id


def test_calls_are_paused_and_resumed(shell: Shell, ledger: LedgerUnderTest) -> None:
    """With who and why, and how many wait."""
    ledger.succeeded("before")
    names = ("--provider", "openai", "--model", "gpt-4o-mini", "--call-type", "extraction")
    code, out, err = shell("pause", *names, "--org", ORG, *REASON, "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made.pop("at")
    assert made == {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "call_type": "extraction",
        "org_id": ORG,
        "is_freeze": False,
        "operator": "ann@example.org",
        "reason": "the provider leaks",
        "waiting": 0,
    }
    paused(ledger)

    (listed,) = json.loads(shell("pauses", "--json")[1])
    assert listed["waiting"] == 1
    table = shell("pauses")[1]
    what = f"provider openai, model gpt-4o-mini, call type extraction, organisation {ORG}"
    for text in (what, "paused", "ann@example.org", "the provider leaks"):
        assert text in table

    code, out, _ = shell("resume", *names, "--org", ORG, *REASON, "--operator", "bob")
    assert (code, out) == (0, f"resumed  {what}\n")
    assert shell("pauses")[2] == "nothing is paused\n"
    done = [(a.action, a.by.operator) for a in ledger.operations.actions(limit=2)]
    assert done == [("resume", "bob"), ("pause", "ann@example.org")]


def test_a_paused_call_says_why(shell: Shell, ledger: LedgerUnderTest) -> None:
    """In lists and alone, and until when it waits at the latest."""
    assert shell("pause", "--all", *REASON)[0] == 0
    task_id = paused(ledger)
    until = f"paused, given up at {ledger.now().replace(day=ledger.now().day + 1):%Y-%m-%d %H:%M}"

    assert until in shell("calls", "list", "--wait-reason", "paused")[1]
    shown = shell("calls", "show", task_id)[1]
    assert until in shown
    assert "paused: paused by an operator: the provider leaks" in shown


def test_an_organisation_is_frozen_and_unfrozen(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Its submissions are refused with a code and the reason."""
    ledger.succeeded("before")
    code, out, err = shell("freeze", ORG, "--reason", "unpaid")
    assert (code, err) == (0, "")
    assert f"frozen         organisation {ORG}\n" in out
    request = ("--org", ORG, "--call-type", "extraction", "--model", "gpt-4o-mini")
    submit = ("submit", *request, "--prompt", "hello", "--max-output-tokens", "5", "--no-wait")

    code, out, err = shell(*submit)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: organisation_frozen: organisation {ORG} is frozen (unpaid): ")

    code, out, _ = shell("unfreeze", ORG, "--reason", "paid", "--json")
    assert code == 0
    assert json.loads(out) == {
        "provider": "", "model": "", "call_type": "", "org_id": ORG, "is_freeze": True,
    }  # fmt: skip
    assert shell(*submit)[0] == 0


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("names", [(), ("--all", "--org", ORG)])
def test_everything_is_named_by_itself(
    shell: Shell, ledger: LedgerUnderTest, command: str, names: tuple[str, ...]
) -> None:
    """A forgotten option must not stop all calls."""
    code, out, err = shell(command, *names, *REASON)

    assert (code, out) == (2, "")
    assert "give --all, or at least one of" in err
    assert ledger.operations.pauses() == []


@pytest.mark.parametrize("command", [("pause", "--all"), ("freeze", ORG), ("unfreeze", ORG)])
def test_a_reason_must_be_given(shell: Shell, command: tuple[str, ...]) -> None:
    """It is stored with the change."""
    assert shell(*command)[0] == 2


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (("pause", "--provider", "opemai"), "unknown_provider: neither the catalogue"),
        (("resume", "--all"), "invalid_request: everything is not paused; see"),
        (("resume", "--org", ORG), f"invalid_request: organisation {ORG} is not paused; see"),
        (("unfreeze", ORG), f"invalid_request: organisation {ORG} is not frozen; see"),
    ],
)
def test_a_slip_changes_nothing(
    shell: Shell, ledger: LedgerUnderTest, command: tuple[str, ...], error: str
) -> None:
    """And does not say that all is well."""
    before = ledger.operations.actions(limit=9)

    code, out, err = shell(*command, *REASON)

    assert (code, out) == (1, "")
    assert err.startswith(f"error: {error}")
    assert ledger.operations.actions(limit=9) == before


def test_a_name_that_no_call_has_used_is_noted(shell: Shell, ledger: LedgerUnderTest) -> None:
    """It may be a slip, or come before the first call."""
    code, _, err = shell("pause", "--model", "o9", "--org", "nobody", *REASON)

    assert code == 0
    assert err == (
        "no call has used model o9 yet: check that the name is right\n"
        "no call has used organisation nobody yet: check that the name is right\n"
    )


def test_a_resume_tells_what_is_still_paused(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Only what may cover the same calls."""
    for names in (("--all",), ("--org", ORG), ("--org", "bolt"), ("--provider", "openai")):
        shell("pause", *names, *REASON)
        ledger.age(1)
    shell("freeze", ORG, "--reason", "unpaid")

    err = shell("resume", "--org", ORG, *REASON)[2]

    assert err == (
        "still paused: everything (the provider leaks)\n"
        "still paused: provider openai (the provider leaks)\n"
        f"still frozen: organisation {ORG} (unpaid)\n"
    )
