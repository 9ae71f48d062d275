"""What a person sees: tables and fields, in a pipe and on terminals of any width."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from callgate.cli.output import (
    escape_what_cannot_be_written,
    print_answer,
    print_error,
    print_fields,
    print_json,
    print_note,
    print_table,
)
from callgate.domain.errors import InvalidRequest

COLUMNS = ("!call", "org", ">spent", "error")
TASK_ID = "5acaa381-7369-884f-b84a-af8a83ee9bff.1"
ROW = (
    TASK_ID,
    "the-accounts-payable-department.of-a-company",
    "$1234.567890123",
    "no 発票\nmodel " * 9,
)
Drawn = Callable[[int | None], str]


@pytest.fixture
def drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Draws the table on a terminal of some width, or into a pipe."""

    def draw(width: int | None) -> str:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: width is not None)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(COLUMNS, [ROW, ROW], "nothing")
        return re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)

    return draw


def test_nothing_is_cut_in_a_pipe(drawn: Drawn) -> None:
    """Whatever reads it finds a row in every line, and every value whole."""
    heading, *rows = drawn(None).splitlines()

    assert heading.split() == ["call", "org", "spent", "error"]
    assert [row.split() for row in rows] == [" ".join(ROW).split()] * 2


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
def test_nothing_is_cut_on_a_terminal(drawn: Drawn, width: int) -> None:
    """A number that lost its end is another number: what does not fit is folded, or a row becomes a list."""
    shown = drawn(width)

    assert max(map(len, shown.splitlines())) <= width
    assert not Counter("".join("".join(ROW * 2).split())) - Counter(shown)
    if width >= 80:
        assert shown.count(TASK_ID) == shown.count("$1234.567890123") == 2


def test_a_field_in_a_pipe_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A long reply can be searched."""
    print_fields({"call": TASK_ID, "nothing": None, "reply": "word " * 1_000})

    assert capsys.readouterr().out == f"call   {TASK_ID}\nreply  {'word ' * 1_000}\n"


ANSWER = "Grüße, 発票 \U0001f600 ✓ … │ \x7f"
"""In one encoding or another each of these is missing."""
ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "shift_jis", "utf-8")


def terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Have this process write in an encoding; reads what has come out on `stdout` or `stderr`."""
    raw = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
    for name, file in raw.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(file, encoding=encoding, errors="strict"))
    escape_what_cannot_be_written()

    def read(name: str) -> str:
        getattr(sys, name).flush()
        return raw[name].getvalue().decode(encoding)

    return read


def spelt_out(text: str, encoding: str) -> str:
    """The text in an encoding, what that lacks as Python spells it."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_an_encoding_lacks_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a traceback: tables, fields, answers, notes, errors."""
    shown = ANSWER.replace("\x7f", r"\u007f")
    written = terminal(encoding, monkeypatch)
    print_table(("org", ">n"), [(ANSWER, 1), ("x", 22)], "nothing")
    print_fields({"reply": ANSWER})
    print_answer(ANSWER)
    print_note(ANSWER)
    print_error(InvalidRequest(ANSWER))

    out, err = written("stdout").splitlines(), written("stderr").splitlines()
    table, fields, answer = out[:3], out[3], out[4]
    cell = spelt_out(shown, encoding)
    assert table[1].split() == [*cell.split(), "1"]
    assert fields == f"reply  {cell}"
    assert answer == spelt_out(ANSWER, encoding)
    assert err == [cell, f"error: invalid_request: {cell}"]
    if encoding == "ascii":
        assert len({len(line.rstrip()) for line in table}) == 1, "the columns do not stand"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_stays_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own escapes of four and eight digits are none in JSON."""
    written = terminal(encoding, monkeypatch)
    print_json({"answer": ANSWER, "key ✓": [ANSWER]})

    assert json.loads(written("stdout")) == {"answer": ANSWER, "key ✓": [ANSWER]}
