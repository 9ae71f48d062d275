"""Publish the provider limits that this worker's catalogue declares, and those that its providers name."""

from __future__ import annotations

from collections.abc import Callable

from callgate.domain.flow_ports import FlowPort
from callgate.domain.limits import Declaration
from callgate.services.learned_limits import LearnedLimits


class LimitKeeper:
    """One per worker; one thread at a time runs it."""

    def __init__(
        self,
        *,
        flow: FlowPort,
        learned: LearnedLimits,
        declaration: Declaration,
        worker_id: str,
        has_lease: Callable[[], bool],
    ) -> None:
        self._flow = flow
        self.learned = learned
        self._declaration = declaration
        self._worker_id = worker_id
        self._has_lease = has_lease
        self._is_published = False

    def run(self) -> None:
        """
        Publish the declaration once, with the first lease; then write what was learned since.

        It is not published again: a worker that started later may have published a newer one.

        Raises:
            LedgerUnavailable: The next run does what this one did not.
        """
        if not self._is_published and self._has_lease():
            self._flow.publish(self._worker_id, self._declaration)
            self._is_published = True
        self.learned.flush()
