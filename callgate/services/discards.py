"""Discard dead letters: one by one, or a group as large as the operator expects."""

from __future__ import annotations

from collections.abc import Sequence

from callgate.domain.calls import CallKey
from callgate.domain.dead_letters import EndedCallsPort, Place
from callgate.domain.errors import CountDiffers
from callgate.domain.reports import By, CallFilter

BATCH_MAX = 1_000
"""Calls of one statement, and of one row of the action log."""
DISCARDED_MAX = 10_000
"""Calls that are discarded at once."""


class DiscardService:
    """Gives up dead letters. Who did it and why is kept with each call, and in the action log."""

    def __init__(self, ended: EndedCallsPort) -> None:
        self._ended = ended

    def discard(self, keys: Sequence[CallKey], *, by: By) -> list[CallKey]:
        """
        Discard dead calls: they become rejected.

        Returns:
            The calls that were still dead.

        Raises:
            LedgerUnavailable: Earlier batches may be discarded.
        """
        discarded: list[CallKey] = []
        for start in range(0, len(keys), BATCH_MAX):
            discarded += self._ended.discard(keys[start : start + BATCH_MAX], by=by)
        return discarded

    def discard_group(self, which: CallFilter, *, expected_count: int, by: By) -> list[CallKey]:
        """
        Discard all dead letters of a group; see `EndedCallsPort.ended_calls` for the filter.

        Args:
            expected_count: How many the operator has seen; `DISCARDED_MAX` at most.

        Returns:
            The calls that were still dead.

        Raises:
            CountDiffers: There are more or fewer; nothing was discarded.
            LedgerUnavailable: As of `discard`.
        """
        keys = self._keys(which, min(expected_count, DISCARDED_MAX) + 1)
        if len(keys) != expected_count or not keys:
            raise CountDiffers(expected_count, len(keys))
        return self.discard(keys, by=by)

    def _keys(self, which: CallFilter, limit: int) -> list[CallKey]:
        keys: list[CallKey] = []
        after: Place | None = None
        while len(keys) < limit:
            page = self._ended.ended_calls(
                which, after=after, limit=min(BATCH_MAX, limit - len(keys))
            )
            keys += [call.key for call in page]
            if not page:
                break
            after = page[-1].place
        return keys
