"""How every command prints: answers on stdout, everything else on stderr, and nothing that controls a terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from uuid import UUID

import typer

from callgate.domain.errors import BudgetRefused, CallFailed, CallgateError, CallRejected

if TYPE_CHECKING:
    from rich.console import Console

    from callgate.client import Client

ESCAPES = "backslashreplace"
"""Python's error handler that escapes what an encoding lacks."""
CELL_CHARS_MIN = 8
"""No cell is folded to fewer characters."""

_CONTROL_CHARS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, bidirectional overrides and lone surrogates."""

Row = TypeVar("Row")
OpenClient = Callable[[], "Client"]
"""Makes the client of one command; `callgate.cli.run` puts it into the context."""


def client_of(context: typer.Context) -> Client:
    """
    Open the client of this command; close it with `with`.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    open_client: OpenClient = context.obj
    return open_client()


def escape_what_cannot_be_written() -> None:
    """Have this process write `\\u2713` where the encoding of its output lacks a character, and not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)


def escape_control_chars(text: str, *, kept: str = "") -> str:
    """
    Escape what would control a terminal: clients and providers choose models, errors and reasons.

    Args:
        kept: Characters that may stay, for example line ends.

    Returns:
        The text with `\\u001b` for an escape character, as JSON writes it.
    """
    return _CONTROL_CHARS.sub(lambda m: m[0] if m[0] in kept else f"\\u{ord(m[0]):04x}", text)


def one_line(value: object) -> str:
    """Any value as one line without control characters."""
    return escape_control_chars(" ".join(cell_text(value).split()))


def print_json(payload: object) -> None:
    """Print one JSON value."""
    text = _json(payload, ensure_ascii=False)
    if _writable(text) != text:
        # JSON has escapes of its own; Python's would not be JSON.
        text = _json(payload, ensure_ascii=True)
    print(text)  # noqa: T201 - the answer


def print_answer(text: str) -> None:
    """Print what a model answered: exactly into a pipe; onto a terminal with line ends and tabs, the rest escaped."""
    # A lone surrogate, which a provider may send, cannot be encoded.
    exact = text.encode(errors="backslashreplace").decode()
    shown = escape_control_chars(exact, kept="\n\t") if sys.stdout.isatty() else exact
    print(shown)  # noqa: T201 - the answer


def print_error(error: CallgateError, *, as_json: bool = False, **about: object) -> None:
    """
    Print an error as one line on stderr, whatever its message contains.

    Args:
        as_json: Print it as one object on stdout as well.
        about: What else that object says, for example which call it is about.
    """
    print(f"error: {error.code}: {one_line(error)}", file=sys.stderr)  # noqa: T201 - a note
    if as_json:
        print_json({**about, "error": error_fields(error)})


def error_fields(error: CallgateError) -> dict[str, object]:
    """An error as JSON: its code and message, and what else a program may ask about it."""
    fields: dict[str, object] = {"code": error.code, "message": str(error)}
    if isinstance(error, BudgetRefused):
        fields["refusal"] = error.refusal
    elif isinstance(error, CallFailed):
        fields |= {"failure_code": error.failure_code, "attempts": error.attempts}
    elif isinstance(error, CallRejected):
        fields["reason_code"] = error.reason_code
    return fields


def print_note(text: str) -> None:
    """Print one line for a person on stderr: it is not the answer."""
    print(one_line(text), file=sys.stderr)  # noqa: T201 - a note


def confirm(question: str, yes: bool) -> None:
    """Ask, unless `--yes` was given; abort on any answer but yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: give --yes")
    typer.confirm(question, abort=True, err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """
    Print a table, or `empty`. Nothing is cut, however narrow the terminal is.

    In a pipe each row is one line. On a terminal cells are folded; if that is not enough, each row becomes a list of
    fields.

    Args:
        columns: Headings. `!` in front is never folded, nor is `>`, which aligns right.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    # Escaped before the columns are measured, because escapes are longer.
    lines = [[_writable(one_line(cell)) for cell in row] for row in rows]
    if not lines:
        print_note(empty)
        return
    headings = [column.lstrip(">!") for column in columns]
    widths = [max(map(cell_len, cells)) for cells in zip(headings, *lines, strict=True)]
    console = _console(width=sum(widths) + len(widths))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    least = 0
    for column, heading, width in zip(columns, headings, widths, strict=True):
        is_whole = column[0] in ">!"
        least += 1 + (width if is_whole else min(width, CELL_CHARS_MIN))
        justify: Literal["left", "right"] = "right" if column[0] == ">" else "left"
        table.add_column(heading, justify=justify, no_wrap=is_whole, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    if least <= console.width:
        console.print(table)
        return
    for line in lines:
        print_fields(dict(zip(headings, line, strict=True)))
        console.print()


def at_most(found: Sequence[Row], limit: int) -> tuple[Sequence[Row], bool]:
    """The first `limit` things, and whether there are more. One more than the limit was asked for."""
    return found[:limit], len(found) > limit


def more_than(limit: int) -> str:
    """What is said if a list was cut."""
    return f"there are more than {limit}: give --limit, or narrow with the other options"


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a field a line; on a terminal long values are folded. Fields that are None are left out."""
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    # On a terminal a second line is folded beside its label. In a pipe it would look like a field.
    kept = "\n\t" if is_terminal else "\t"
    texts = {
        label: _writable(escape_control_chars(cell_text(value), kept=kept))
        for label, value in fields.items()
        if value is not None
    }
    longest = max(map(len, texts))
    if not is_terminal:
        for label, text in texts.items():
            print(f"{label:{longest}}  {text}")  # noqa: T201 - the answer
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for label, text in texts.items():
        table.add_row(label, Text(text))
    _console().print(table)


def cell_text(value: object) -> str:
    """A value as text for people."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S %Z")
    return str(value)


def to_jsonable(value: object) -> object:
    """What `json` cannot write by itself, as something it can."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, UUID | Decimal | Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"no JSON for {type(value).__name__}")


def _json(payload: object, *, ensure_ascii: bool) -> str:
    text = json.dumps(payload, default=to_jsonable, ensure_ascii=ensure_ascii, indent=2)
    return escape_control_chars(text, kept="\n")


def _writable(text: str) -> str:
    """The text as stdout will write it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, ESCAPES).decode(encoding)


def _console(width: int | None = None) -> Console:
    """As wide as the terminal, or `width` where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else width
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)
