"""What a person sees: tables and fields, in a pipe and on terminals of any width."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from callgate.cli_output import print_fields, print_table

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
