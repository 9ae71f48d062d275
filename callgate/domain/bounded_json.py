"""
JSON that somebody else wrote: measured as text before any of it becomes an object.

A megabyte of `[],[],...` is small to send; read, it is 50 times as large, and slow. Who receives it bounds its
bytes; here it is what they would become.
"""

from __future__ import annotations

import json
import re
from typing import Any

VALUES_MAX = 50_000
"""Some hundred times what the longest honest reply has; a few MB as objects."""
DEPTH_MAX = 100
STEPS_MAX = 4 * VALUES_MAX
"""A value has a comma or a bracket before it, and at most a name, its own quotes and a bracket behind it."""
_STRING_OR_MARK = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)


class TooMuch(ValueError):
    """More values, or deeper nested ones, than are read."""


def loads(text: bytes | str) -> Any:
    """
    Read JSON of at most `VALUES_MAX` values, nested at most `DEPTH_MAX` deep.

    Raises:
        TooMuch: It is, or may be, above a bound; nothing was built.
        ValueError: It is no JSON.
    """
    if isinstance(text, bytes):
        # As `json.loads` has it. Decoded first: bytes of UTF-16 can look like quotes.
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    measure(text)
    return json.loads(text)


def check_utf8(text: bytes) -> None:
    """
    Ask the same of JSON in UTF-8 that something else will read.

    Raises:
        TooMuch
    """
    # A character for each byte, so that it takes no more room: no byte of a longer character looks like a mark.
    measure(text.decode("latin-1"))


def measure(text: str) -> None:
    """
    See that JSON is within the bounds of `loads`. It takes no longer than the text's length and `STEPS_MAX` steps.

    Raises:
        TooMuch: It is, or may be, above a bound.
    """
    openings = text.count("[") + text.count("{")
    if openings <= DEPTH_MAX and openings + text.count(",") < VALUES_MAX and len(text) < STEPS_MAX:
        # Those in strings are counted as well: there are no more of them outside.
        return
    values, depth = 1, 0
    for steps, match in enumerate(_STRING_OR_MARK.finditer(text)):
        mark = text[match.start()]
        if mark in "]}":
            depth -= 1
        elif mark != '"':
            values += 1
            depth += mark != ","
        if values > VALUES_MAX or depth > DEPTH_MAX or steps > STEPS_MAX:
            raise TooMuch(f"more than {VALUES_MAX} values, or nested more than {DEPTH_MAX} deep")
