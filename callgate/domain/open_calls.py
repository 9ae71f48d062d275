"""
The bound of an organisation's open calls: back-pressure for its pipelines.

What would create more calls is not stored. A submission that joins or replays a call is always answered, and so is one
that the ledger has stored before. The bound is in the catalogue of the workers: so it is one number for all clients,
and no client needs a newer catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from callgate.domain.errors import InvalidRequest

OPEN_CALLS_MAX = 100_000
"""The bound while no worker has published another. The Postgres function contains the same number."""
PAUSE_MIN_S = 0.25
PAUSE_MAX_S = 5.0
"""The mean pause between two tries to submit: it doubles from the least to this."""


class OnBusy(StrEnum):
    """What a client does when an organisation has too many open calls."""

    RAISE = "raise"
    WAIT = "wait"


def on_busy_of(word: str) -> OnBusy:
    """
    Read the word of a caller.

    Raises:
        InvalidRequest: There is no such word.
    """
    try:
        return OnBusy(word)
    except ValueError:
        raise InvalidRequest(f"on_busy is one of {', '.join(OnBusy)}") from None


@dataclass(frozen=True, slots=True)
class OpenCalls:
    """Why a submission was not stored."""

    calls: int
    """How many calls of the organisation are open. Of many calls it is an estimate."""
    calls_max: int


def busy_pause_s(tries: int, jitter: float) -> float:
    """Seconds until the next try after so many without room; `jitter` is between 0 and 1."""
    mean_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0 ** min(tries, 16))
    return mean_s * (0.5 + jitter)
