"""
The words of a search for calls: `org:acme state:dead since:2h`. Pages and the command line read the same ones.

A value with a space, or with a quote at its start, stands in double quotes; in those, a backslash keeps the next
character as it is. A word without a name is the id of a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from callgate.domain import bounds
from callgate.domain.calls import AttemptKind, AttemptStatus, CallKey, CallState
from callgate.domain.errors import InvalidWords
from callgate.domain.reports import CallFilter

TEXT_CHARS_MAX = 2_000
"""A whole search."""
AGO_MAX = timedelta(days=3_650)
_SPACE = re.compile(r"\s+")
_NAMED = re.compile(r"([A-Za-z_]+):")
_BARE = re.compile(r'[^\s"]\S*')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_AGO = re.compile(r"(\d{1,6})(m|h|d)")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class _Moment:
    """What values are read against."""

    now: datetime
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class Word:
    """One name that a search may use."""

    name: str
    meaning: str
    example: str
    field: str
    read: Callable[[str, _Moment], Any]


def parse_words(text: str, *, now: datetime, zone: tzinfo = UTC) -> CallFilter:
    """
    Read the words of a search; every word narrows.

    Args:
        now: What times such as `2h` count back from.
        zone: Of times and days that name none.

    Raises:
        InvalidWords: Says which word is wrong, and what is expected.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise InvalidWords(f"a search has at most {TEXT_CHARS_MAX} characters")
    moment, found, seen = _Moment(now, zone), CallFilter(), set[str]()
    for name, value in _split(text):
        word = WORDS.get(name)
        if word is None:
            raise InvalidWords(f"there is no word {name}: the words are {', '.join(WORDS)}")
        if name in seen:
            raise InvalidWords(f"{name}: is given twice")
        seen.add(name)
        read = word.read(value, moment)
        found = replace(found, **(read if word.field == "" else {word.field: read}))
    return _ordered(found)


def with_words(text: str, changes: Mapping[str, str | None]) -> str:
    """
    Return a search with other words, by name; None takes a word away. Times such as `2h` stay as they are.

    Raises:
        InvalidWords: The text cannot be read.
    """
    words = {**dict(_split(text)), **changes}
    return " ".join(
        f"{name}:{_quoted(value)}" for name, value in words.items() if value is not None
    )


def both(one: CallFilter, other: CallFilter) -> CallFilter:
    """
    Return the filter that narrows as two do.

    Raises:
        InvalidWords: Both say the same thing.
    """
    given = {field.name: getattr(other, field.name) for field in fields(CallFilter)}
    given = {name: value for name, value in given.items() if value not in (None, ())}
    for name in given:
        if getattr(one, name) not in (None, ()):
            word = next((w.name for w in WORDS.values() if w.field == name), "id")
            raise InvalidWords(f"{word}: is given twice")
    return _ordered(replace(one, **given))


def words_of(which: CallFilter) -> str:
    """
    Write a filter as the words of a search: `parse_words` reads the same filter from them.

    More than one call id cannot be written; the first is.
    """
    said = ((name, _said(which, name)) for name in WORDS)
    return " ".join(f"{name}:{_quoted(value)}" for name, value in said if value is not None)


def _ordered(which: CallFilter) -> CallFilter:
    if which.since and which.until and which.since >= which.until:
        raise InvalidWords("since: must be before until:")
    return which


def _said(which: CallFilter, name: str) -> str | None:
    """The value of one word, if the filter has one."""
    if name == "id":
        if not which.call_ids:
            return None
        generation = "" if which.generation is None else f".{which.generation}"
        return f"{which.call_ids[0]}{generation}"
    value = getattr(which, WORDS[name].field)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return None if value is None else str(value)


def _split(text: str) -> list[tuple[str, str]]:
    """The words of a text, as name and value."""
    words: list[tuple[str, str]] = []
    at = 0
    while True:
        if space := _SPACE.match(text, at):
            at = space.end()
        if at == len(text):
            return words
        named = _NAMED.match(text, at)
        start = named.end() if named else at
        value, at = _value(text, start)
        words.append((named.group(1).lower() if named else _unnamed(value), value))


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins there, and where it ends."""
    if quoted := _QUOTED.match(text, at):
        end = quoted.end()
        if end < len(text) and not text[end].isspace():
            raise InvalidWords(f"after the quotes of {_cut(quoted.group())} a space is missing")
        return re.sub(r"\\(.)", r"\1", quoted.group(1), flags=re.DOTALL), end
    if text.startswith('"', at):
        raise InvalidWords(f"the quotes of {_cut(text[at:])} are not closed")
    bare = _BARE.match(text, at)
    return (bare.group(), bare.end()) if bare else ("", at)


def _unnamed(value: str) -> str:
    """The name of a word that was written without one."""
    try:
        _call(value)
    except InvalidWords:
        raise InvalidWords(
            f"{_cut(value)} needs a name before it, such as org:{_cut(value)};"
            f" the names are {', '.join(WORDS)}"
        ) from None
    return "id"


def _quoted(value: str) -> str:
    if value and not value.startswith('"') and not _SPACE.search(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _cut(text: str) -> str:
    """The beginning of a text, for a message of one line."""
    return bounds.one_line(text, _SHOWN_CHARS) + ("..." if len(text) > _SHOWN_CHARS else "")


def _text(name: str, chars_max: int, *, may_be_empty: bool = False) -> Callable[..., str]:
    def read(value: str, _: _Moment) -> str:
        if not value and not may_be_empty:
            raise InvalidWords(f"{name}: needs a value")
        if len(value) > chars_max:
            raise InvalidWords(f"{name}: has at most {chars_max} characters")
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
            raise InvalidWords(f"{name}: has a character that no name can have")
        return value

    return read


def _one_of(name: str, values: Mapping[str, Any]) -> Callable[..., Any]:
    def read(value: str, _: _Moment) -> Any:
        try:
            return values[value.lower()]
        except KeyError:
            known = ", ".join(values)
            raise InvalidWords(f"{name}:{_cut(value)} is none of {known}") from None

    return read


def _time(name: str) -> Callable[..., datetime]:
    def read(value: str, moment: _Moment) -> datetime:
        if ago := _AGO.fullmatch(value.lower()):
            back = int(ago.group(1)) * _UNITS[ago.group(2)]
            if back <= AGO_MAX:
                return moment.now - back
            raise InvalidWords(f"{name}: is at most {AGO_MAX.days} days ago")
        try:
            at = datetime.fromisoformat(value)
            return (at if at.tzinfo else at.replace(tzinfo=moment.zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidWords(
                f"{name}:{_cut(value)} is no time; write 2026-11-30, 2026-11-30T18:00Z, 90m, 2h or 7d"
            ) from None

    return read


def _id(value: str, _: _Moment) -> dict[str, Any]:
    return _call(value)


def _call(value: str) -> dict[str, Any]:
    """A task id, or a call id: then all its generations."""
    try:
        key = CallKey.from_task_id(value if "." in value else f"{value}.1")
    except ValueError:
        raise InvalidWords(f"id:{_cut(value)} is no id of a call or task") from None
    return {"call_ids": (key.call_id,), "generation": key.generation if "." in value else None}


def _word(name: str, field: str, read: Callable[..., Any], meaning: str, example: str) -> Word:
    return Word(name, meaning, example, field, read)


_NAME = bounds.NAME_CHARS_MAX
_STATES = {state.value: state for state in CallState}
WORDS: Mapping[str, Word] = {
    word.name: word
    for word in (
        _word("org", "org_id", _text("org", _NAME), "The organisation.", "acme"),
        _word("type", "call_type", _text("type", _NAME), "The call type.", "extraction"),
        _word("model", "model", _text("model", _NAME), "The model.", "gpt-4o-mini"),
        _word("provider", "provider", _text("provider", _NAME), "The provider.", "openai"),
        _word("state", "state", _one_of("state", _STATES), "The state.", "dead"),
        _word(
            "reason",
            "reason",
            _text("reason", _NAME),
            "Why it waits, or the code of the error with which it ended.",
            "budget_exhausted",
        ),
        _word(
            "fp",
            "error_fingerprint",
            _text("fp", bounds.FINGERPRINT_CHARS_MAX),
            "The fingerprint of the error: calls that failed alike.",
            "3f9a1c20b7de",
        ),
        _word(
            "trace",
            "trace_id",
            _text("trace", bounds.TRACE_ID_CHARS_MAX),
            "The caller's trace, of calls that were sent.",
            "checkout-7",
        ),
        _word("id", "", _id, "A call id or a task id.", "7c1f...e2.1"),
        _word("since", "since", _time("since"), "Submitted then or later.", "24h"),
        _word("until", "until", _time("until"), "Submitted before.", "2026-11-30T18:00Z"),
        _word(
            "tier",
            "tier",
            _text("tier", _NAME, may_be_empty=True),
            'With an attempt of this service tier; "": not known.',
            "flex",
        ),
        _word(
            "kind",
            "kind",
            _one_of("kind", {kind.value: kind.value for kind in AttemptKind}),
            "With an attempt of this kind.",
            "repair",
        ),
        _word(
            "outcome",
            "outcome",
            _one_of("outcome", {status.value: status.value for status in AttemptStatus}),
            "With an attempt of this status.",
            "unknown",
        ),
    )
}
"""By name, in the order in which they are written."""
