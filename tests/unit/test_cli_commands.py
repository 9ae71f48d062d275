"""The command line over the ledger in memory: what is printed where, and which code it ends with."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli import run
from callgate.cli.output import print_error
from callgate.client import Client
from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState
from callgate.domain.delivery import Delivery, Published, Told
from callgate.domain.errors import CallFailed, ConfigurationError
from callgate.domain.ledger import RecordAnswer, Reserve, Reserved, Settle
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.reports import (
    CallFilter,
    CostLine,
    UnprocessableMessage,
)
from callgate.domain.requests import Anomaly, LLMRequest, Message, Usage
from callgate.settings import ClientSettings

HOSTILE = "\x1b[2J \x1b]52;c;cm0gLXJm\x07 \x7f \x9b31m \u202e fdp \u2066 \ud800"
"""Clears a screen, fills a clipboard, rubs out, colours, turns text around, and half a character."""
ANSWER = "Gr\u00fc\u00dfe\t\u200d\nund \x1b[2J \x9b31m\r\ud800"
FAILURE = Failure("bad_request", "no such model\nreally", False, Billing.UNBILLED, status=400)
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
Shell = Callable[..., tuple[int, str, str]]


class SilentQueue:
    """`QueuePort` that wakes nobody."""

    def publish_calls(self, keys: Sequence[CallKey]) -> None: ...
    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None: ...
    def publish_sweep(self, sent_at: datetime) -> None: ...
    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        return [Published(d.submission_id) for d in deliveries]


@pytest.fixture
def ledger() -> MemoryLedger:
    """An empty ledger."""
    return MemoryLedger()


@pytest.fixture
def open_client(ledger: MemoryLedger) -> Callable[[], Client]:
    """Makes clients of that ledger, which need neither Postgres nor a broker."""
    settings = ClientSettings(
        database_url="postgresql+psycopg2://nobody@127.0.0.1:1/none",
        broker_url="redis://127.0.0.1:1/0",
    )
    return lambda: Client(
        settings, ledger=ledger, operations=ledger, queue=SilentQueue(), retention=ledger
    )


@pytest.fixture
def shell(open_client: Callable[[], Client], capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs a command line: its exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, open_client)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def dead(ledger: MemoryLedger, open_client: Callable[[], Client]) -> CallKey:
    """A call that failed for good."""
    return a_dead_call(ledger, open_client)


def a_request(content: str = "secret text") -> LLMRequest:
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=(Message(role="user", content=content),),
        max_output_tokens=100,
    )


def a_dead_call(
    ledger: MemoryLedger, open_client: Callable[[], Client], content: str = "secret text"
) -> CallKey:
    with open_client() as client:
        key = client.submit(a_request(content), force=True).key
    ref = reserve(ledger, key)
    ledger.record([RecordAnswer(ref, None, FAILURE.to_json(), 5)])
    ledger.settle(
        [
            Settle(
                ref,
                AttemptStatus.ANSWERED,
                AttemptStatus.FAILED,
                0,
                CallState.DEAD,
                error=FAILURE.to_json(),
                error_fingerprint=FAILURE.fingerprint("openai"),
            )
        ]
    )
    return key


def reserve(ledger: MemoryLedger, key: CallKey) -> AttemptRef:
    wanted = Reserve(key, 100, 60.0, "worker:1", "list", default_limit_nano_usd=NANO_PER_USD)
    (reserved,) = ledger.reserve([wanted])
    assert isinstance(reserved, Reserved)
    return reserved.ref


def an_answered_call(
    ledger: MemoryLedger, open_client: Callable[[], Client], answer: str
) -> CallKey:
    with open_client() as client:
        key = client.submit(a_request()).key
    ref = reserve(ledger, key)
    usage = Usage(input_tokens=5, output_tokens=5)
    reply = ProviderReply((answer,), "stop", None, usage, None, "gpt-4o-mini", None)
    ledger.record([RecordAnswer(ref, reply.to_json(), None, 5)])
    success = (AttemptStatus.SUCCEEDED, 0, CallState.SUCCEEDED)
    ledger.settle([Settle(ref, AttemptStatus.ANSWERED, *success, usage=usage)])
    return key


def steers(text: str) -> set[str]:
    """What of a text steers a terminal, but for the ends of its lines."""
    found = {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    return (found | {c for c in text if unicodedata.bidirectional(c) in BIDI}) - {"\n"}


def state_of(ledger: MemoryLedger, key: CallKey) -> CallState:
    (view,) = ledger.read([key])
    assert view is not None
    return view.state


def test_a_usage_nobody_knows_is_shown_as_unknown_with_what_is_odd(
    shell: Shell, ledger: MemoryLedger, open_client: Callable[[], Client]
) -> None:
    """0 + 0 tokens would be a lie, and an operator must see why a success cost its whole hold."""
    with open_client() as client:
        key = client.submit(a_request()).key
    ref = reserve(ledger, key)
    reply = ProviderReply(("fine",), "stop", None, None, None, "gpt-4o-mini", None)
    ledger.record([RecordAnswer(ref, reply.to_json(), None, 5)])
    success = (AttemptStatus.SUCCEEDED, 100, CallState.SUCCEEDED)
    flags = (Anomaly.USAGE_ZERO, Anomaly.TIER_UNASKED)
    ledger.settle([Settle(ref, AttemptStatus.ANSWERED, *success, anomalies=flags)])

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


def test_whoever_stops_waiting_is_told_the_name_of_the_call(
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


def test_patience_that_ends_is_an_error_that_names_the_call(shell: Shell) -> None:
    """Who stops waiting must be able to find the call again."""
    options = ("--org", "acme", "--call-type", "x", "--model", "gpt-4o-mini", "--prompt", "hi")

    code, out, err = shell("submit", *options, "--max-output-tokens", "5", "--timeout", "0")

    assert (code, out) == (1, "")
    assert err.startswith("error: wait_timeout: call ")
    assert err.count("\n") == 1


def test_a_bad_request_is_one_line_without_its_text(shell: Shell, tmp_path: Path) -> None:
    """Prompts must not reach a terminal's log by way of an error."""
    file = tmp_path / "request.json"
    file.write_text(a_request().model_dump_json().replace('"role":"user"', '"role":"nobody"'))

    code, out, err = shell("submit", "--file", str(file))

    assert (code, out) == (1, "")
    assert err.startswith("error: invalid_request: messages.0.role: ")
    assert "secret" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit",),
        ("submit", "--file", "-", "--org", "acme"),
        ("budget", "set", "acme"),
        ("budget", "set", "acme", "--daily-usd", "-1"),
        ("budget", "set", "acme", "--daily-usd", "nan"),
        ("budget", "set", "acme", "--daily-usd", "0.0000000001"),
        ("budget", "set", "two words", "--daily-usd", "1"),
        ("dead", "discard"),
        ("dead", "redrive", "--rate", "fast"),
        ("dead", "redrive", "--id", "x"),
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


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends a command with 130, as shells expect, and without a traceback."""

    def open_client() -> Client:
        raise KeyboardInterrupt

    code = run(["costs"], open_client)

    assert code == 130
    assert capsys.readouterr() == ("", "")


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


def test_costs_show_how_long_answers_took(
    shell: Shell, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what they cost."""
    line = CostLine("acme", "x", "openai", "gpt-4o", 3, 3, 3, 0, 9, 0, 9, 7, 0, 812, 1_900)
    monkeypatch.setattr(ledger, "costs", lambda org_id: [line])

    heading, row = shell("costs")[1].splitlines()

    assert heading.split()[-4:] == ["p50", "ms", "p95", "ms"]
    assert row.split()[-2:] == ["812", "1900"]


def test_nothing_is_coloured_in_a_pipe(shell: Shell, dead: CallKey) -> None:
    """Escape sequences are for terminals only."""
    for command in (("calls", "list"), ("calls", "show", dead.task_id), ("audit",)):
        assert "\x1b" not in shell(*command)[1]


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "json"])
def test_nothing_that_is_printed_steers_a_terminal(
    shell: Shell, ledger: MemoryLedger, dead: CallKey, form: tuple[str, ...]
) -> None:
    """Models, errors and reasons are chosen by clients, providers and whoever reaches the broker."""
    ledger.keep_unprocessable(
        UnprocessableMessage("callgate.call", HOSTILE, HOSTILE.encode(errors="replace"))
    )
    call, error = ledger.tables.calls[dead], replace(FAILURE, message=HOSTILE).to_json()
    call.model = call.call_type = HOSTILE
    call.error = error
    ledger.tables.attempts_of[dead][0].error = error
    listed = [("calls", "list"), ("dead", "list"), ("dead", "stats"), ("costs",), ("audit",)]

    for command in [*listed, ("calls", "show", dead.task_id, "--bodies")]:
        _, out, err = shell(*command, *form)

        assert out
        assert steers(out + err) == set(), command
    assert "52;c;cm0gLXJm" in shell("calls", "show", dead.task_id, *form)[1]


def test_json_holds_what_was_escaped(shell: Shell, ledger: MemoryLedger, dead: CallKey) -> None:
    """Only its spelling is another: who parses it gets each character back."""
    ledger.tables.calls[dead].model = HOSTILE

    assert json.loads(shell("calls", "show", dead.task_id, "--json")[1])["model"] == HOSTILE


def test_no_error_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A provider's last words are in it."""
    print_error(CallFailed(HOSTILE + "\nerror: forged", "bad_request", 1))

    err = capsys.readouterr().err
    assert (steers(err), err.count("\n")) == (set(), 1)


def test_an_answer_is_exact_in_a_pipe_and_harmless_on_a_terminal(
    shell: Shell, ledger: MemoryLedger, open_client: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """A program gets what the model wrote; a terminal gets its lines and tabs, and the rest spelt out."""
    an_answered_call(ledger, open_client, ANSWER)
    file = tmp_path / "request.json"
    file.write_text(a_request().model_dump_json())

    _, piped, _ = shell("submit", "--file", str(file))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, shown, _ = shell("submit", "--file", str(file))

    assert piped == ANSWER.replace("\ud800", "\\ud800") + "\n"
    assert shown == "Gr\u00fc\u00dfe\t\u200d\nund \\u001b[2J \\u009b31m\\u000d\\ud800\n"


def test_cancelling_a_dead_call_is_refused(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """Discarding it is another decision, with a reason of its own."""
    code, _, _ = shell("calls", "cancel", dead.task_id)

    assert code == 1
    assert state_of(ledger, dead) is CallState.DEAD


def test_an_unknown_call_is_an_error(shell: Shell) -> None:
    """Both spellings say what was not found."""
    call_id = "00000000-0000-8000-8000-000000000000"

    assert shell("calls", "show", call_id)[2].startswith("error: call_not_found: ")
    assert shell("calls", "show", f"{call_id}.1")[2].startswith("error: call_not_found: ")
    assert shell("calls", "show", "what")[2].startswith("error: invalid_request: ")


def test_a_budget_is_set_in_usd_and_shown(shell: Shell) -> None:
    """Amounts are exact decimals; JSON carries nano-USD."""
    code, _, _ = shell("budget", "set", "acme", "--daily-usd", "5", "--monthly-usd", "0.000000001")

    shown = json.loads(shell("budget", "show", "acme", "--json")[1])

    assert code == 0
    assert [(b["scope"], b["window"], b["limit_nano_usd"]) for b in shown] == [
        ("org", "day", 5 * NANO_PER_USD),
        ("org", "month", 1),
    ]
    assert shown[0]["left_nano_usd"] == 5 * NANO_PER_USD


def test_a_new_limit_keeps_the_time_zone(shell: Shell) -> None:
    """Raising a limit must not move the days of a budget."""
    berlin = ("--timezone", "Europe/Berlin", "--call-type", "extraction")
    shell("budget", "set", "acme", "--daily-usd", "5", *berlin)

    _, out, _ = shell(
        "budget", "set", "acme", "--daily-usd", "6", "--call-type", "extraction", "--json"
    )

    (figures,) = json.loads(out)
    assert (figures["scope"], figures["timezone"]) == ("call_type:extraction", "Europe/Berlin")


def test_dead_letters_are_calls_and_strays(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """A message that named no call is a dead letter too, but of no organisation."""
    ledger.keep_unprocessable(UnprocessableMessage("callgate.call", "undecodable", b"\xff{"))

    everything = json.loads(shell("dead", "list", "--json")[1])
    of_acme = json.loads(shell("dead", "list", "--org", "acme", "--json")[1])

    assert [c["task_id"] for c in everything["calls"]] == [dead.task_id]
    assert everything["unprocessable_messages"][0]["reason"] == "undecodable"
    assert of_acme["unprocessable_messages"] == []
    assert "undecodable" in shell("dead", "list")[1]


def test_dead_calls_are_grouped_by_what_went_wrong(shell: Shell, dead: CallKey) -> None:
    """The fingerprint of a group is a filter of every other command."""
    (group,) = json.loads(shell("dead", "stats", "--json")[1])

    listed = json.loads(
        shell("dead", "list", "--fingerprint", group["error_fingerprint"], "--json")[1]
    )

    assert (group["count"], group["sample_error"]["code"]) == (1, "bad_request")
    assert [c["task_id"] for c in listed["calls"]] == [dead.task_id]


def test_a_dead_call_is_shown_with_its_request(shell: Shell, dead: CallKey) -> None:
    """Whoever decides about a dead letter must see what was asked."""
    shown = json.loads(shell("dead", "show", dead.task_id, "--json")[1])

    assert shown["request"]["messages"][0]["content"] == "secret text"
    assert shown["last"]["error"]["code"] == "bad_request"


def test_a_dry_run_prices_and_changes_nothing(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """The worst case is what the budget must have room for."""
    told = json.loads(shell("dead", "redrive", "--dry-run", "--json")[1])

    assert (told["count"], told["redriven"]) == (1, [])
    assert told["worst_case_nano_usd"] > 0
    assert len(ledger.calls(CallFilter(), limit=10)) == 1


def test_a_redriven_call_is_not_redriven_again(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """A later generation may have succeeded: running the dead one anew would pay for the answer twice."""
    redriven = json.loads(shell("dead", "redrive", "--yes", "--json")[1])["redriven"]
    again = json.loads(shell("dead", "redrive", "--yes", "--json")[1])

    assert redriven == [f"{dead.call_id}.2"]
    assert (again["count"], again["redriven"]) == (0, [])
    assert json.loads(shell("dead", "list", "--json")[1])["calls"] == []
    assert len(ledger.calls(CallFilter(), limit=10)) == 2


def test_redrive_stops_at_max_and_keeps_its_rate(
    shell: Shell, ledger: MemoryLedger, open_client: Any
) -> None:
    """An operator can try a few, slowly, before the rest."""
    for content in ("a", "b", "c"):
        a_dead_call(ledger, open_client, content)

    told = json.loads(
        shell("dead", "redrive", "--max", "2", "--rate", "50/s", "--yes", "--json")[1]
    )

    assert len(told["redriven"]) == 2


def test_nobody_is_asked_where_nobody_is(
    shell: Shell, ledger: MemoryLedger, dead: CallKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal and without --yes nothing is changed."""
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)

        assert shell("dead", "redrive")[0] == 2
        assert shell("dead", "discard", "--reason", "old")[0] == 2
    assert state_of(ledger, dead) is CallState.DEAD


def test_a_discarded_call_says_who_and_why(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """It becomes rejected, so that submitting it again is asked anew."""
    code, out, _ = shell("dead", "discard", "--reason", "old model", "--yes", "--json")

    (view,) = ledger.read([dead])
    assert (code, json.loads(out)) == (0, {"discarded": [dead.task_id]})
    assert view is not None
    assert view.state is CallState.REJECTED
    assert view.error is not None
    assert json.loads(view.error)["code"] == "discarded"
    assert json.loads(view.error)["message"].startswith("old model (by ")


def test_a_clean_audit_ends_with_zero(shell: Shell, dead: CallKey) -> None:
    """The books of a ledger that was only used by its methods are right."""
    code, out, _ = shell("audit", "--json")

    assert (code, json.loads(out)["drift_nano_usd"]) == (0, 0)


def test_an_audit_that_finds_drift_ends_with_one(
    shell: Shell, ledger: MemoryLedger, dead: CallKey
) -> None:
    """A monitor needs no more than the exit code."""
    (budget_id, figures), *_ = ledger.tables.budgets.items()
    ledger.tables.budgets[budget_id] = replace(figures, spent_nano_usd=7)

    code, out, _ = shell("audit", "--json")

    assert code == 1
    assert (json.loads(out)["is_clean"], json.loads(out)["drift_nano_usd"]) == (False, 7)
    assert "WRONG" in shell("audit")[1]


def test_the_doctor_names_what_is_amiss(shell: Shell) -> None:
    """One line a check; a broken one does not hide the others."""
    code, out, _ = shell("doctor", "--model", "openai/no-such-model")

    checks = {line.split()[1].rstrip(":"): line.split()[0] for line in out.splitlines()}
    assert code == 1
    assert checks["settings"] == checks["schema"] == checks["tokenizer"] == "OK"
    assert checks["database"] == checks["price"] == "FAIL"


def test_a_purge_asks_first_and_says_what_it_did(
    shell: Shell, dead: CallKey, ledger: MemoryLedger
) -> None:
    """A dry run counts; nobody to ask is no yes; then bodies are gone and figures stay."""
    erase = ("purge", "--org", "acme", "--older-than-days", "0")

    code, out, _ = shell(*erase, "--dry-run", "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "dry_run": True, "calls": 1, "unprocessable_messages": 0, "open_calls_spared": 0, "is_complete": True,
            "calls_with_bodies": 1,
        },
    )  # fmt: skip
    code, _, err = shell(*erase)
    assert (code, "--yes" in err) == (2, True)
    assert ledger.tables.calls[dead].request is not None
    assert "purged" not in shell("calls", "show", dead.task_id)[1]

    code, out, _ = shell(*erase, "--yes", "--json")
    assert (code, json.loads(out)["calls"]) == (0, 1)
    assert ledger.tables.calls[dead].request is None
    assert ["bodies", "purged"] in [
        line.split() for line in shell("calls", "show", dead.task_id, "--bodies")[1].splitlines()
    ]
    assert shell(*erase, "--yes")[2] == "purged: 0 calls\n"


def test_a_purge_names_the_open_calls_it_spared(shell: Shell, open_client: Any) -> None:
    """They cannot be erased while they run."""
    with open_client() as client:
        client.submit(a_request())

    code, _, err = shell("purge", "--org", "acme", "--older-than-days", "0", "--yes")

    assert code == 0
    assert "purged: 0 calls" in err
    assert "spared: 1 open calls" in err


def test_a_purge_tells_of_ended_calls_that_it_left(
    shell: Shell, dead: CallKey, ledger: MemoryLedger
) -> None:
    """One that has somebody to tell keeps its bodies: whoever had to erase them must not read that all is well."""
    ledger.tables.calls[dead].due_at = datetime.now(UTC)
    erase = ("purge", "--org", "acme", "--yes", "--older-than-days")

    code, _, err = shell(*erase, "0")
    json_code, as_json, _ = shell(*erase, "0", "--json")

    assert (code, json_code) == (1, 1)
    assert "left: 1 ended calls still have their bodies" in err
    assert (json.loads(as_json)["calls_with_bodies"], json.loads(as_json)["is_complete"]) == (
        1,
        False,
    )
    # What is younger was not asked for.
    code, as_json, _ = shell(*erase, "1", "--json")
    assert (code, json.loads(as_json)["calls_with_bodies"], json.loads(as_json)["is_complete"]) == (
        0,
        1,
        True,
    )


def test_a_purge_of_an_unknown_organisation_is_an_error(shell: Shell, dead: CallKey) -> None:
    """Who misspells what must be erased would otherwise believe that it was."""
    for mode in (("--dry-run",), ("--yes",), ("--yes", "--json")):
        code, out, err = shell("purge", "--org", "acmee", "--older-than-days", "0", *mode)

        assert (code, out) == (1, "")
        assert err.startswith("error: org_not_found: ")
        assert "acmee" in err


def test_a_purge_without_any_age_is_refused(shell: Shell, dead: CallKey) -> None:
    """Neither the command nor the catalogue says how old is too old."""
    code, _, err = shell("purge", "--yes")

    assert code == 2
    assert "--older-than-days" in err


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
    ledger.deliver(
        [
            Told(given_up.submission_id, "broken: KeyError"),
            *(Told(link.submission_id, "refused by the broker", 10.0) for link in others),
        ]
    )

    _, shown, _ = shell("calls", "show", key.task_id)
    _, as_json, _ = shell("calls", "show", key.task_id, "--json")

    assert "1 given up: broken: KeyError; 2 to be tried again: refused by the broker" in " ".join(
        shown.split()
    )
    assert [f["tries"] for f in json.loads(as_json)["link_failures"]] == [1, 1, 1]
    assert "secret" not in shown + as_json
