"""What operators see of unknown bills, breakers and waiting calls, and what they change in their own names."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli import run
from callgate.cli.actions import by_of
from callgate.client import Client
from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, AttemptStatus, CallState
from callgate.domain.reports import By
from callgate.domain.unknown import UnknownFilter
from callgate.services.bills import BILLS_BYTES_MAX, BILLS_MAX
from callgate.settings import ClientSettings
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_success,
    an_answer,
    open_memory,
)

HOSTILE = "\x1b[2J\u202efdp\ud800"
Shell = Callable[..., tuple[int, str, str]]
REASON = ("--reason", "invoice 7")


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory."""
    return open_memory()


@pytest.fixture
def shell(
    ledger: LedgerUnderTest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    """Runs a command line: its exit code, stdout, stderr."""
    monkeypatch.setenv("CALLGATE_OPERATOR", "ann@example.org")
    settings = ClientSettings(
        database_url="postgresql+psycopg2://nobody@127.0.0.1:1/none",
        broker_url="redis://127.0.0.1:1/0",
    )
    memory = ledger.ledger
    assert isinstance(memory, MemoryLedger)

    def open_client() -> Client:
        return Client(settings, ledger=memory, operations=memory, retention=memory)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, open_client)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def given_up(ledger: LedgerUnderTest, content: str = "invoice", **changes: Any) -> AttemptRef:
    ref = ledger.running(content, **changes)
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    return ref


def settled(ledger: LedgerUnderTest, ref: AttemptRef) -> int | None:
    """What an attempt posts, if it was settled by hand."""
    bill = ledger.operations.bills([ref.attempt_id])[ref.attempt_id]
    return bill.posted_nano_usd if bill.settled_by_hand_at else None


def file_of(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "bills.csv"
    path.write_text("".join(f"{line}\n" for line in ("attempt_id,billed_usd", *lines)))
    return str(path)


# Looking.


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


def test_a_call_that_waits_says_for_what(shell: Shell, ledger: LedgerUnderTest) -> None:
    """And until when, in lists and alone."""
    key = ledger.waiting(due_in_s=60).key
    until = f"{ledger.now() + timedelta(seconds=60):%H:%M:%S}"

    listed, shown = shell("calls", "list")[1], shell("calls", "show", key.task_id)[1]

    for out in (listed, shown):
        assert "retry until 20" in out
        assert until in out
    assert json.loads(shell("calls", "list", "--json")[1])[0]["wait_reason"] == "retry"


def test_an_attempt_says_how_it_was_made_and_what_was_odd(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    """Whose key was used, and whether it was a probe."""
    key = ledger.queued()
    ledger.reserve(a_reserve(key, credential="acme"))
    ref = AttemptRef(key, ledger.view(key).last.attempt_id)  # type: ignore[union-attr]
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, anomalies=("usage_zero", "tier_unasked")))

    shown = shell("calls", "show", key.task_id)[1]

    assert "as a call, with acme's own key" in shown
    assert "usage_zero, tier_unasked" in shown


# Settling.


def test_an_attempt_is_settled_in_ones_own_name(shell: Shell, ledger: LedgerUnderTest) -> None:
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


def test_what_somebody_else_settled_is_changed_knowingly(
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


def test_more_than_the_hold_needs_a_word(shell: Shell, ledger: LedgerUnderTest) -> None:
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
def test_what_cannot_be_meant_is_wrong_usage(
    shell: Shell, ledger: LedgerUnderTest, arguments: tuple[str, ...]
) -> None:
    """Before the ledger hears of it."""
    ref = given_up(ledger)
    named = [str(ref.attempt_id) if a == "ID" else a for a in arguments]

    code, out, _ = shell("unknown", "settle", *REASON, *named)

    assert (code, out) == (2, "")
    assert settled(ledger, ref) is None


def test_a_reason_is_required(shell: Shell, ledger: LedgerUnderTest) -> None:
    """For everything that an operator changes here."""
    attempt = str(given_up(ledger).attempt_id)

    assert shell("unknown", "settle", attempt, "--unbilled")[0] == 2
    for command in ("open", "close"):
        assert shell("breakers", command, "--provider", "openai", "--model", "o9")[0] == 2


# Files.


def test_a_file_is_answered_line_by_line(
    shell: Shell, ledger: LedgerUnderTest, tmp_path: Path
) -> None:
    """Those that can be are settled; the others say why not."""
    one, two, three = (given_up(ledger, page).attempt_id for page in ("one", "two", "three"))
    known, nobodys = ledger.succeeded("known").attempt_id, uuid4()
    file = file_of(
        tmp_path, f"{one},0", f"{two},6E-08", "", f"{three},1", f"{known},0", f"{nobodys},0"
    )

    code, out, _ = shell("unknown", "settle", "--csv", file, *REASON, "--json")

    answers = [(UUID(a["attempt_id"]), a["outcome"]) for a in json.loads(out)["attempts"]]
    assert code == 1
    assert answers == [
        (one, "settled"), (two, "settled"), (three, "above_hold"), (known, "not_unknown"),
        (nobodys, "not_found"),
    ]  # fmt: skip
    assert ledger.figures() == (0, 0 + 60 + 100 + 60)


def test_a_dry_run_of_a_file_changes_nothing(
    shell: Shell, ledger: LedgerUnderTest, tmp_path: Path
) -> None:
    """It says what the file would do."""
    ref = given_up(ledger)
    file = file_of(tmp_path, f"{ref.attempt_id},0")

    code, out, err = shell("unknown", "settle", "--csv", file, *REASON, "--dry-run")

    assert code == 0
    assert "settled" in out
    assert "would be: 1 settled" in err
    assert settled(ledger, ref) is None


def test_a_spreadsheets_file_is_read_from_stdin(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its byte order mark, its line ends and its quotes."""
    ref = given_up(ledger)
    raw = f'\ufeff"attempt_id","billed_usd"\r\n"{ref.attempt_id}","6E-08"\r\n\r\n'.encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))

    assert shell("unknown", "settle", "--csv", "-", *REASON)[0] == 0
    assert settled(ledger, ref) == 60


@pytest.mark.parametrize(
    ("lines", "complaints"),
    [
        (["ID,0", "what,0"], ["line 3: 'what' is no attempt id"]),
        (["ID,0", "ID,0"], ["line 3: attempt ID is in line 2 already"]),
        (["", "ID", "ID,0,0"], ["line 3: 1 fields", "line 4: 3 fields"]),
        (["ID,-1", "OTHER,nan"], ["line 2: '-1' is no amount", "line 3: 'nan' is no amount"]),
        (["ID,0.0000000001", "OTHER,"], ["line 2: ", "line 3: '' is no amount"]),
        (["ID,1e999999", "OTHER,1000001"], ["line 2: ", "line 3: "]),
        (['ID,"0', "x"], ["no CSV"]),
        (["ID,0\x00", HOSTILE[:-1] + ",0"], ["line 2: ", "line 3: "]),
        (["x,0"] * 30, ["line 21: ", "and 10 more lines"]),
    ],
)
def test_a_file_with_a_wrong_line_is_refused_whole(
    shell: Shell,
    ledger: LedgerUnderTest,
    tmp_path: Path,
    lines: list[str],
    complaints: list[str],
) -> None:
    """Each is named by its number, in one line, and no amount was applied."""
    refs = [given_up(ledger, page) for page in ("one", "two")]

    def named(text: str) -> str:
        return text.replace("ID", str(refs[0].attempt_id)).replace("OTHER", str(refs[1].attempt_id))

    file = file_of(tmp_path, *map(named, lines))

    code, out, err = shell("unknown", "settle", "--csv", file, *REASON)

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: invalid_bills: ")
    assert [c for c in complaints if named(c) not in err] == []
    assert "\x1b" not in err
    assert [settled(ledger, ref) for ref in refs] == [None, None]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"attempt;billed\n", "first line must be attempt_id,billed_usd"),
        (b"billed_usd,attempt_id\n", "first line must be attempt_id,billed_usd"),
        (b"attempt_id,billed_usd\n\xff,0\n", "no UTF-8"),
        (b"attempt_id,billed_usd\n" + b"x" * BILLS_BYTES_MAX, "split it"),
        (
            b"attempt_id,billed_usd\n"
            + b"".join(b"%s,0\n" % str(UUID(int=n)).encode() for n in range(BILLS_MAX + 1)),
            "split it",
        ),
    ],
    ids=["empty", "blank", "other names", "other order", "no text", "too long", "too many"],
)
def test_a_file_that_is_none_of_bills_is_refused(
    shell: Shell, tmp_path: Path, content: bytes, complaint: str
) -> None:
    """In one line that says what it must be."""
    (path := tmp_path / "bills.csv").write_bytes(content)

    code, out, err = shell("unknown", "settle", "--csv", str(path), *REASON)

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert complaint in err


def test_a_long_file_goes_in_batches(shell: Shell, ledger: LedgerUnderTest, tmp_path: Path) -> None:
    """Every line is answered, in its order."""
    ledger.set_budget(10**6)
    ids = [given_up(ledger, f"page {n}").attempt_id for n in range(450)]
    file = file_of(tmp_path, *(f"{i},0" for i in reversed(ids)))

    code, out, _ = shell("unknown", "settle", "--csv", file, *REASON, "--json")

    assert code == 0
    assert [UUID(a["attempt_id"]) for a in json.loads(out)["attempts"]] == ids[::-1]
    assert ledger.operations.unknown_bills(UnknownFilter(), limit=1) == []


# Breakers.


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
    assert "closed" in closed

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
    assert "no call has asked for" in err
    (line,) = [b for b in ledger.operations.breakers() if b.is_open]
    assert line.credential == "acme"


@pytest.mark.parametrize(
    ("command", "provider", "error"),
    [("open", "opemai", "unknown_provider"), ("close", "openai", "invalid_request")],
)
def test_a_breaker_that_cannot_be_meant_is_refused(
    shell: Shell, ledger: LedgerUnderTest, command: str, provider: str, error: str
) -> None:
    """A slip must not open nothing, or close nothing, and say that all is well."""
    before = ledger.operations.actions(limit=9)

    code, _, err = shell("breakers", command, "--provider", provider, "--model", "o9", *REASON)

    assert code == 1
    assert err.startswith(f"error: {error}: ")
    assert ledger.operations.actions(limit=9) == before


# The doctor.


def test_the_doctor_tells_what_waits_for_an_operator(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As warnings: calls go on, or wait for just that."""
    monkeypatch.setattr("callgate.cli.doctor._schema", lambda client: "migrated")
    assert shell("doctor")[1].count("OK   breakers: none is open\nOK   unknown bills: none\n") == 1
    given_up(ledger)
    ref = ledger.answered("refused")
    ledger.settle(a_failure(ref, health=Health.KEY_REFUSED, failure_code="quota"))

    out = shell("doctor")[1]

    assert "WARN breakers: open: openai/gpt-4o-mini for acme since" in out
    assert "(quota; 0 calls wait)" in out
    assert "WARN unknown bills: 1 attempts hold $0.000000100" in out


# Harm.


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "json"])
def test_nothing_of_it_steers_a_terminal(
    shell: Shell, ledger: LedgerUnderTest, form: tuple[str, ...]
) -> None:
    """Models, providers' words and operators' reasons come from elsewhere."""
    memory: Any = ledger.ledger
    ref = given_up(ledger, model=HOSTILE)
    memory.tables.attempts[ref.attempt_id].provider_request_id = HOSTILE
    memory.tables.attempts[ref.attempt_id].anomalies = ("usage_zero", HOSTILE)
    ledger.operations.set_breaker("openai", HOSTILE, "", is_open=True, by=By(HOSTILE, HOSTILE))

    for command in (
        ("unknown", "list"), ("unknown", "summary"), ("breakers", "list"), ("actions", "list"),
        ("calls", "show", ref.key.task_id),
    ):  # fmt: skip
        code, out, err = shell(*command, *form)

        assert (code, bool(out)) == (0, True)
        assert not {"\x1b", "\u202e", "\ud800"} & set(out + err), command


def test_the_state_stays_what_it_was(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Settling a bill says nothing about the answer."""
    ref = given_up(ledger)

    shell("unknown", "settle", str(ref.attempt_id), "--unbilled", *REASON)

    last = ledger.view(ref).last
    assert last is not None
    assert last.status is AttemptStatus.UNKNOWN
    assert ledger.state(ref.key) is CallState.DEAD
