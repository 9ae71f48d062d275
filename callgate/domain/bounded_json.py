"""
Parses JSON from untrusted senders. The number and nesting of its values are checked in the text, before parsing.

A megabyte of `[],[],...` becomes 50 times as large as Python objects, and slow to build. Callers limit the bytes; this
module limits the objects.
"""

from __future__ import annotations

import json
import re
from typing import Any

VALUES_MAX = 50_000
"""About a hundred times the longest normal reply; a few MB as objects."""
DEPTH_MAX = 100
STEPS_MAX = 4 * VALUES_MAX
"""Regular expression matches per document. One value needs at most four: its name, itself, a comma and a bracket."""
_STRING_OR_MARK = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)


class TooLarge(ValueError):
    """The JSON has too many values, or is nested too deeply."""


def loads(text: bytes | str) -> Any:
    """
    Parse JSON of at most `VALUES_MAX` values, nested at most `DEPTH_MAX` deep.

    Raises:
        TooLarge: It exceeds a bound, or may do so. Nothing was parsed.
        ValueError: It is not JSON.
    """
    if isinstance(text, bytes):
        # As `json.loads` decodes it. Decoding comes first: bytes of UTF-16 can look like quotes.
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    check(text)
    return json.loads(text)


def check_bytes(text: bytes) -> None:
    """
    Check JSON in UTF-8 that another parser will read; see `check`.

    Raises:
        TooLarge
    """
    # Latin-1 gives one character per byte and needs no more memory. No byte of a multi-byte character is a mark.
    check(text.decode("latin-1"))


def check(text: str) -> None:
    """
    Check that JSON is within the bounds of `loads`. The time is linear in the text, with at most `STEPS_MAX` matches.

    Raises:
        TooLarge: It exceeds a bound, or may do so.
    """
    openings = text.count("[") + text.count("{")
    if openings <= DEPTH_MAX and openings + text.count(",") < VALUES_MAX and len(text) < STEPS_MAX:
        # Fast path. It counts marks inside strings too, so the true numbers are not higher.
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
            raise TooLarge(f"more than {VALUES_MAX} values, or nested more than {DEPTH_MAX} deep")
