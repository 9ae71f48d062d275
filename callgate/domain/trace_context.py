"""
The context of a trace: which span of which trace something belongs to, as one short text.

It is the header `traceparent` of W3C Trace Context (https://www.w3.org/TR/trace-context/, level 1). A message or a row
may hold any text, so every reader checks it. It decides where spans appear, and nothing else.
"""

from __future__ import annotations

import re

HEADER = "traceparent"
"""The header of a message, and the key of a stored link."""
TRACEPARENT_CHARS = 55
_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def checked(value: object) -> str | None:
    """The context that this value is; None if it is none, and then there is no context."""
    if isinstance(value, str) and len(value) == TRACEPARENT_CHARS and _FORM.fullmatch(value):
        return value
    return None
