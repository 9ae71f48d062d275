"""What every command shares: how the client is found, how answers are printed, which options repeat."""

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
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer
from pydantic import TypeAdapter, ValidationError

from callgate.domain.budgets import usd
from callgate.domain.calls import CallView
from callgate.domain.errors import CallgateError
from callgate.domain.requests import Name, Usage

if TYPE_CHECKING:
    from rich.console import Console

    from callgate.client import Client

ESCAPES = "backslashreplace"
"""Python's name for spelling out what an encoding lacks."""
CELL_CHARS_MIN = 8
"""No cell is folded into less."""

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_STEERING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, what turns the direction of text around, and halves of characters, which cannot be printed."""

OpenClient = Callable[[], "Client"]
"""Makes the client of one command; put into the context by `callgate.cli.run`."""


def name(text: str) -> str:
    """Parse an organisation, call type, provider or model."""
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is no name") from None


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Org = Annotated[str | None, typer.Option("--org", parser=name, help="Only this organisation.")]
CallType = Annotated[str | None, typer.Option("--call-type", parser=name, help="Only this type.")]
Provider = Annotated[str | None, typer.Option("--provider", parser=name, help="Only this one.")]
Model = Annotated[str | None, typer.Option("--model", parser=name, help="Only this model.")]
Fingerprint = Annotated[
    str | None, typer.Option("--fingerprint", help="Only calls that failed alike.")
]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def client_of(context: typer.Context) -> Client:
    """
    Open the client of this command; close it with `with`.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    open_client: OpenClient = context.obj
    return open_client()


def escape_what_cannot_be_written() -> None:
    """Have this process spell out what the encoding of its output lacks, as `\\u2713`, and not end in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)


def harmless(text: str, *, kept: str = "") -> str:
    """
    Spell out what would steer a terminal, for models, errors and reasons are chosen by clients and providers.

    Args:
        kept: Characters that may stay, such as line ends.

    Returns:
        The text with `\\u001b` for an escape, which is how JSON spells it too.
    """
    return _STEERING.sub(lambda m: m[0] if m[0] in kept else f"\\u{ord(m[0]):04x}", text)


def one_line(value: object) -> str:
    """Anything as one harmless line."""
    return harmless(" ".join(_cell(value).split()))


def print_json(value: object) -> None:
    """Print one JSON value."""
    text = _json(value, ensure_ascii=False)
    if _writable(text) != text:
        # Escapes of JSON's own; those of Python are none in JSON.
        text = _json(value, ensure_ascii=True)
    print(text)  # noqa: T201 - the answer


def print_answer(text: str) -> None:
    """Print what a model answered: exactly into a pipe, with nothing but lines and tabs that steer onto a terminal."""
    # Half a character has no bytes; a provider may send one all the same.
    exact = text.encode(errors="backslashreplace").decode()
    print(harmless(exact, kept="\n\t") if sys.stdout.isatty() else exact)  # noqa: T201 - the answer


def print_error(error: CallgateError) -> None:
    """Print an error as one line on stderr, whatever its message holds."""
    print(f"error: {error.code}: {one_line(error)}", file=sys.stderr)  # noqa: T201 - the command's voice


def say(text: str) -> None:
    """Tell a person something that is not the answer, in one line."""
    print(one_line(text), file=sys.stderr)  # noqa: T201 - the command's voice


def confirm(question: str, yes: bool) -> None:
    """Ask, unless the answer was given; abort on anything but yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody is there to be asked: give --yes")
    typer.confirm(question, abort=True, err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """
    Print a table, or `empty`. However little room there is, nothing is cut.

    In a pipe a row is a line. On a terminal cells are folded; where that is not enough a row becomes a list of fields.

    Args:
        columns: Headings. `!` in front is never folded, nor is `>`, which aligns right.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    # Spelt out before it is measured, or the columns would not stand.
    lines = [[_writable(one_line(cell)) for cell in row] for row in rows]
    if not lines:
        say(empty)
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


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a field a line; on a terminal long ones are folded."""
    from rich.table import Table
    from rich.text import Text

    is_watched = sys.stdout.isatty()
    # Folded beside its label a second line is no field; in a pipe it would look like one.
    kept = "\n\t" if is_watched else "\t"
    texts = {
        label: _writable(harmless(_cell(value), kept=kept))
        for label, value in fields.items()
        if value is not None
    }
    longest = max(map(len, texts))
    if not is_watched:
        for label, text in texts.items():
            print(f"{label:{longest}}  {text}")  # noqa: T201 - the answer
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for label, text in texts.items():
        table.add_row(label, Text(text))
    _console().print(table)


def call_fields(view: CallView) -> dict[str, Any]:
    """One call as JSON; amounts are nano-USD. Bodies are there if they were read."""
    fields = {"task_id": view.key.task_id, **_without_bodies(view)}
    fields["input_hash"] = view.input_hash.hex()
    fields["error"] = loaded(view.error)
    if view.request is not None:
        fields["request"] = loaded_body(view.request)
    if view.last is not None:
        fields["last"] = {**_without_bodies(view.last), "error": loaded(view.last.error)}
        if view.last.reply is not None:
            fields["last"]["reply"] = loaded_body(view.last.reply)
    return fields


def loaded_body(body: bytes) -> object:
    """A stored request or reply; as text if it is no JSON, for that may be what an operator looks for."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


def loaded(error: str | None) -> dict[str, Any] | None:
    """Read a stored error; a broken one is a message without a code."""
    if error is None:
        return None
    try:
        return dict(json.loads(error))
    except (ValueError, TypeError, RecursionError):
        return {"code": "unknown", "message": error}


def error_text(error: str | None) -> str:
    """A stored error for people."""
    fields = loaded(error)
    return f"{fields.get('code', 'unknown')}: {fields.get('message', '')}" if fields else ""


def tokens_text(usage: Usage | None) -> str:
    """Tokens in and out for people; what nobody told is unknown, not 0."""
    return f"{usage.input_tokens} + {usage.output_tokens}" if usage else "unknown"


def call_rows(views: Sequence[CallView]) -> Iterable[Sequence[object]]:
    """Calls as rows under `CALL_COLUMNS`."""
    for view in views:
        error = (loaded(view.error) or {}).get("code", "")
        yield (
            view.key.task_id,
            view.state,
            view.org_id,
            view.model,
            usd(view.posted_nano_usd),
            error,
        )


def waits_for(view: CallView) -> str:
    """Why a call waits, and until when at the latest; empty if it does not."""
    return f"{view.wait_reason} until {_cell(view.due_at)}" if view.wait_reason else ""


CALL_COLUMNS = ("!call", "!state", "org", "model", ">cost", "error")


def _json(value: object, *, ensure_ascii: bool) -> str:
    text = json.dumps(value, default=_plain, ensure_ascii=ensure_ascii, indent=2)
    return harmless(text, kept="\n")


def _writable(text: str) -> str:
    """The text as stdout will have it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, ESCAPES).decode(encoding)


def _console(width: int | None = None) -> Console:
    """As wide as the terminal, or `width` where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else width
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _without_bodies(value: Any) -> dict[str, Any]:
    """The fields of a dataclass but bytes and what is nested."""
    return {
        field.name: item
        for field in dataclasses.fields(value)
        if not isinstance(item := getattr(value, field.name), bytes)
        and field.name not in ("key", "last", "request", "reply")
    }


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S %Z")
    return str(value)


def _plain(value: object) -> object:
    """What `json` cannot write by itself."""
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
