"""`callgate submit` and `callgate calls`: what is printed, and which calls are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.client import Client
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import RecordAnswer, Settle
from callgate.domain.provider import ProviderReply
from callgate.domain.reports import CallFilter
from callgate.domain.requests import Anomaly
from tests.support.command_line import Shell, a_request, reserve, state_of


def test_an_unreported_usage_is_shown_as_unknown_with_its_anomalies(
    shell: Shell, ledger: MemoryLedger, open_client: Callable[[], Client]
) -> None:
    """0 + 0 tokens would be a lie, and an operator must see why a success cost its whole hold."""
    with open_client() as client:
        key = client.submit(a_request()).key
    ref = reserve(ledger, key)
    reply = ProviderReply(("fine",), "stop", None, None, None, "gpt-4o-mini", None)
    ledger.record([RecordAnswer(ref, reply.to_json(), None, 5)])
    settle = Settle(
        ref,
        AttemptStatus.ANSWERED,
        AttemptStatus.SUCCEEDED,
        100,
        CallState.SUCCEEDED,
        anomalies=(Anomaly.USAGE_ZERO, Anomaly.TIER_UNASKED),
    )
    ledger.settle([settle])

    _, shown, _ = shell("calls", "show", key.task_id)
    _, as_json, _ = shell("calls", "show", key.task_id, "--json")

    fields = {
        name.strip(): value
        for name, _, value in (line.partition("  ") for line in shown.splitlines())
    }
    assert fields["tokens"].strip() == "unknown"
    assert fields["flags"].strip() == "usage_zero, tier_unasked"
    last = json.loads(as_json)["last"]
    assert (last["usage"], last["anomalies"]) == (None, ["usage_zero", "tier_unasked"])


def test_ctrl_c_while_waiting_names_the_call(
    shell: Shell, ledger: MemoryLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes on, and is paid: its result must not be lost with the terminal."""

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    (file := tmp_path / "request.json").write_text(a_request().model_dump_json())
    monkeypatch.setattr(ledger, "read", ctrl_c)

    code, out, err = shell("submit", "--file", str(file))

    (view,) = ledger.calls(CallFilter(), limit=1)
    assert (code, out) == (130, "")
    assert f"callgate calls show {view.key.task_id} --bodies" in err


def test_a_submitted_call_is_named_at_once(shell: Shell, tmp_path: Path) -> None:
    """With --no-wait the answer is the task id; the same request again is told to be collapsed."""
    file = tmp_path / "request.json"
    file.write_text(a_request().model_dump_json())

    code, task_id, _ = shell("submit", "--file", str(file), "--no-wait")
    _, again, _ = shell("submit", "--file", str(file), "--no-wait", "--json")

    assert code == 0
    assert json.loads(again) == {"task_id": task_id.strip(), "collapsed": True}


def test_a_timeout_is_an_error_that_names_the_call(shell: Shell) -> None:
    """The call can be found again."""
    options = ("--org", "acme", "--call-type", "x", "--model", "gpt-4o-mini", "--prompt", "hi")

    code, out, err = shell("submit", *options, "--max-output-tokens", "5", "--timeout", "0")

    assert (code, out) == (1, "")
    named, error = err.splitlines()
    assert error.startswith(f"error: wait_timeout: {named} ")


@pytest.mark.parametrize("ending", ["timeout", "dead", "ctrl-c"])
def test_submit_names_the_call_whatever_happens(
    shell: Shell, ledger: MemoryLedger, dead: CallKey, tmp_path: Path, monkeypatch: Any, ending: str
) -> None:
    """In the object of --json, beside what went wrong; and as the first line on stderr."""

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    request = a_request("another text" if ending == "timeout" else "secret text")
    (file := tmp_path / "request.json").write_text(request.model_dump_json())
    if ending == "ctrl-c":
        monkeypatch.setattr(ledger, "read", ctrl_c)

    code, out, err = shell("submit", "--file", str(file), "--timeout", "0", "--json")

    told = json.loads(out)
    expected = {"timeout": "wait_timeout", "dead": "call_failed", "ctrl-c": "interrupted"}
    assert code == (130 if ending == "ctrl-c" else 1)
    assert told["error"]["code"] == expected[ending]
    assert err.startswith(f"call {told['task_id']}\n")
    if ending == "dead":
        assert told["task_id"] == dead.task_id
        assert told["error"]["failure_code"] == "bad_request"


def test_submit_names_the_call_that_may_have_been_accepted(
    shell: Shell, ledger: MemoryLedger, open_client: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """An outage in the middle of a submission: nobody knows, but everybody can look."""

    def outage(*_: object) -> None:
        raise LedgerUnavailable("no answer")

    with open_client() as client:
        key = client.submit(a_request()).key
    (file := tmp_path / "request.json").write_text(a_request().model_dump_json())
    monkeypatch.setattr(ledger, "submit", outage)

    code, out, err = shell("submit", "--file", str(file), "--json")

    assert code == 1
    assert f"if it was accepted, it is call {key.call_id}\n" in err
    assert json.loads(out)["error"] == {"code": "ledger_unavailable", "message": "no answer"}


def test_a_bad_request_is_one_line_without_its_text(shell: Shell, tmp_path: Path) -> None:
    """Prompts must not reach a terminal's log by way of an error."""
    file = tmp_path / "request.json"
    file.write_text(a_request().model_dump_json().replace('"role":"user"', '"role":"nobody"'))

    code, out, err = shell("submit", "--file", str(file))

    assert (code, out) == (1, "")
    assert err.startswith("error: invalid_request: messages.0.role: ")
    assert "secret" not in err


def test_calls_are_listed_shown_and_cancelled(shell: Shell, open_client: Any) -> None:
    """A call is found by its task id, and by its call id alone."""
    with open_client() as client:
        key = client.submit(a_request()).key

    _, table, _ = shell("calls", "list", "--org", "acme")
    _, shown, _ = shell("calls", "show", str(key.call_id), "--json")
    code, cancelled, _ = shell("calls", "cancel", key.task_id, "--reason", "typo", "--json")
    code_again, _, err = shell("calls", "cancel", key.task_id)

    assert key.task_id in table
    assert json.loads(shown)["task_id"] == key.task_id
    assert "request" not in json.loads(shown)
    assert code == 0
    assert json.loads(cancelled) == {
        "task_id": key.task_id, "cancelled": True, "state": "rejected"
    }  # fmt: skip
    assert code_again == 1
    assert "is rejected" in err


def test_cancelling_a_dead_call_is_refused(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """Discarding it is another decision, with a reason of its own."""
    code, _, _ = shell("calls", "cancel", dead.task_id)

    assert code == 1
    assert state_of(ledger, dead) is CallState.DEAD


def test_an_unknown_call_is_an_error(shell: Shell) -> None:
    """By call id and by task id; other text is not an id."""
    call_id = "00000000-0000-8000-8000-000000000000"

    assert shell("calls", "show", call_id)[2].startswith("error: call_not_found: ")
    assert shell("calls", "show", f"{call_id}.1")[2].startswith("error: call_not_found: ")
    assert shell("calls", "show", "what")[2].startswith("error: invalid_request: ")


def test_a_call_is_found_by_its_first_digits(shell: Shell, open_client: Any) -> None:
    """Eight are enough if no other call begins with them; fewer are refused."""
    with open_client() as client:
        key = client.submit(a_request()).key
    short = key.call_id.hex[:8]

    for named in (short, f"{short}.1", str(key.call_id)[:13]):
        assert json.loads(shell("calls", "show", named, "--json")[1])["task_id"] == key.task_id
    assert shell("calls", "cancel", short)[0] == 0
    assert "too short: give at least 8" in shell("calls", "show", short[:7])[2]
    assert shell("calls", "show", "00000000")[2].startswith("error: call_not_found: ")
    assert shell("calls", "show", f"{short}.9")[2].startswith("error: call_not_found: ")


def test_digits_that_name_two_calls_list_both(
    shell: Shell, ledger: MemoryLedger, open_client: Any
) -> None:
    """Neither is taken by chance."""
    with open_client() as client:
        row = ledger.tables.calls[client.submit(a_request()).key]
    ids = [UUID(f"abcdef00-0000-8000-8000-00000000000{n}") for n in (1, 2)]
    for each in ids:
        ledger.tables.calls[CallKey(each, 1)] = replace(row, key=CallKey(each, 1))

    code, _, err = shell("calls", "show", "abcdef00")
    _, _, of_option = shell("dead-letters", "discard", "--id", "abcdef00", "--reason", "x", "--yes")

    assert code == 1
    assert err.startswith(f"error: ambiguous_call: abcdef00 can be {ids[0]}, {ids[1]}: ")
    assert of_option.startswith("error: ambiguous_call: ")


def test_links_that_could_not_be_delivered_are_shown_with_their_reason(
    shell: Shell, ledger: MemoryLedger, open_client: Callable[[], Client]
) -> None:
    """How many were given up and how many wait, and why; nothing of the links themselves."""
    with open_client() as client:
        key = client.submit(a_request()).key
        joined = [client._submit.prepare(a_request(), link='{"secret": 1}') for _ in range(3)]
        client.ledger.submit(joined)
        client.cancel(key.task_id, "by a test")
    given_up, *others = ledger.links(limit=10)
    ledger.keep_link_outcomes(
        [
            LinkOutcome(given_up.submission_id, "broken: KeyError"),
            *(LinkOutcome(link.submission_id, "refused by the broker", 10.0) for link in others),
        ]
    )

    _, shown, _ = shell("calls", "show", key.task_id)
    _, as_json, _ = shell("calls", "show", key.task_id, "--json")

    assert "1 given up: broken: KeyError; 2 to be tried again: refused by the broker" in " ".join(
        shown.split()
    )
    assert [f["tries"] for f in json.loads(as_json)["link_failures"]] == [1, 1, 1]
    assert "secret" not in shown + as_json


def test_calls_are_listed_by_words(shell: Shell, open_client: Any) -> None:
    """As in Flower; options narrow further."""
    with open_client() as client:
        key = client.submit(a_request()).key
    count = lambda *a: len(json.loads(shell("calls", "list", *a, "--json")[1]))  # noqa: E731

    assert count("org:acme state:queued since:1h") == 1
    assert count("org:acme", "state:dead") == 0
    assert count(key.task_id) == 1
    assert count("state:queued", "--org", "other") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("colour:red",), "error: invalid_words: there is no word colour: the words are"),
        (("org:acme", "--org", "acme"), "error: invalid_words: org: is given twice"),
        (("since:1h", "--today"), "error: invalid_words: since: is given twice"),
    ],
)
def test_wrong_words_are_one_line(shell: Shell, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = shell("calls", "list", *arguments)

    assert (code, out) == (1, "")
    assert said in err
