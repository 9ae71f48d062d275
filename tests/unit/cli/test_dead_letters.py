"""`callgate dead-letters`: list, group, discard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.calls import CallKey, CallState
from callgate.domain.reports import UnprocessableMessage
from tests.support.command_line import Shell, state_of


def test_dead_letters_are_calls_and_unprocessable_messages(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """A message that named no call is a dead letter too, but of no organisation."""
    ledger.keep_unprocessable(UnprocessableMessage("callgate.call", "undecodable", b"\xff{"))

    everything = json.loads(shell("dead-letters", "list", "--json")[1])
    of_acme = json.loads(shell("dead-letters", "list", "--org", "acme", "--json")[1])

    assert [c["task_id"] for c in everything["calls"]] == [dead.task_id]
    assert everything["unprocessable_messages"][0]["reason"] == "undecodable"
    assert of_acme["unprocessable_messages"] == []
    assert "undecodable" in shell("dead-letters", "list")[1]


def test_dead_calls_are_grouped_by_what_went_wrong(shell: Shell, dead: CallKey) -> None:
    """The fingerprint of a group is a filter of every other command."""
    (group,) = json.loads(shell("dead-letters", "summary", "--json")[1])

    listed = json.loads(
        shell("dead-letters", "list", "--fingerprint", group["error_fingerprint"], "--json")[1]
    )

    assert (group["count"], group["sample_error"]["code"]) == (1, "bad_request")
    assert [c["task_id"] for c in listed["calls"]] == [dead.task_id]


def test_a_dead_call_is_shown_with_its_request(shell: Shell, dead: CallKey) -> None:
    """The operator who decides about it must see what was asked."""
    shown = json.loads(shell("dead-letters", "show", dead.task_id, "--json")[1])

    assert shown["request"]["messages"][0]["content"] == "secret text"
    assert shown["last"]["error"]["code"] == "bad_request"


def test_nothing_is_changed_where_nobody_can_be_asked(
    shell: Shell, ledger: MemoryLedger, dead: CallKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal and without --yes nothing is changed."""
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)

        assert shell("dead-letters", "redrive", "--reason", "x", "--id", dead.task_id)[0] == 2
        assert shell("dead-letters", "discard", "--reason", "old")[0] == 2
    assert state_of(ledger, dead) is CallState.DEAD


def test_discarding_nothing_says_so(shell: Shell, dead: CallKey) -> None:
    """A script that names the wrong group must not believe that it is done."""
    discard = ("dead-letters", "discard", "--reason", "old", "--yes", "--call-type", "other")

    code, out, err = shell(*discard)
    of_json, as_json, _ = shell(*discard, "--json")

    assert (code, out, err) == (1, "", "no dead letter matches, nothing was discarded\n")
    assert (of_json, json.loads(as_json)) == (1, {"discarded": []})


def test_a_discarded_call_says_who_and_why(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """It becomes rejected, so that submitting it again starts a new generation."""
    code, out, _ = shell("dead-letters", "discard", "--reason", "old model", "--yes", "--json")

    (view,) = ledger.read([dead])
    assert (code, json.loads(out)) == (0, {"discarded": [dead.task_id]})
    assert view is not None
    assert view.state is CallState.REJECTED
    assert view.error is not None
    assert json.loads(view.error)["code"] == "discarded"
    assert json.loads(view.error)["message"].startswith("old model (by ")
