"""`callgate unknown settle --csv`: files of bills."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from callgate.domain.unknown import UnknownFilter
from callgate.services.bills import BILLS_MAX, BILLS_MAX_BYTES
from tests.support.command_line import HOSTILE, Shell, given_up, settled
from tests.support.ledger_under_test import LedgerUnderTest, open_memory

REASON = ("--reason", "invoice 7")


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def file_of(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "bills.csv"
    path.write_text("".join(f"{line}\n" for line in ("attempt_id,billed_usd", *lines)))
    return str(path)


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
        (["ID,0", "what,0"], ["line 3: 'what' is not an attempt id"]),
        (["ID,0", "ID,0"], ["line 3: attempt ID is already in line 2"]),
        (["", "ID", "ID,0,0"], ["line 3: 1 fields", "line 4: 3 fields"]),
        (["ID,-1", "OTHER,nan"], ["line 2: '-1' is no amount", "line 3: 'nan' is no amount"]),
        (["ID,0.0000000001", "OTHER,"], ["line 2: ", "line 3: '' is no amount"]),
        (["ID,1e999999", "OTHER,1000001"], ["line 2: ", "line 3: "]),
        (['ID,"0', "x"], ["not CSV"]),
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
        (b"attempt_id,billed_usd\n\xff,0\n", "not UTF-8"),
        (b"attempt_id,billed_usd\n" + b"x" * BILLS_MAX_BYTES, "split it"),
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
