"""How people name a call: by its task id, its call id, or the first digits of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

DIGITS_MIN = 8
"""Fewer digits name too many calls."""
CANDIDATES_MAX = 10
"""So many calls are listed that begin alike."""
_NAMED = re.compile(r"([0-9a-f-]{1,36})(?:\.(\d{1,10}))?", re.IGNORECASE)
_DIGITS = 32


@dataclass(frozen=True, slots=True)
class ShortId:
    """The call ids that begin with some digits."""

    first: UUID
    last: UUID
    generation: int | None
    """None: the newest."""

    @property
    def is_whole(self) -> bool:
        """True if all digits were given."""
        return self.first == self.last


def read_short_id(text: str) -> ShortId:
    """
    Read the first digits of a call id, or all of them; with `.2` the second generation.

    Raises:
        ValueError: Says what is wrong.
    """
    match = _NAMED.fullmatch(text)
    digits = match[1].replace("-", "") if match else ""
    if match is None or len(digits) > _DIGITS or not digits:
        raise ValueError(f"{text!r} is not a call id or task id")
    if len(digits) < DIGITS_MIN:
        raise ValueError(f"{text!r} is too short: give at least {DIGITS_MIN} digits of the call id")
    first, last = (UUID(digits.ljust(_DIGITS, fill)) for fill in "0f")
    return ShortId(first, last, int(match[2]) if match[2] else None)
