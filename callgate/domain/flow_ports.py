"""The port for provider limits: what workers declare and learn about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from callgate.domain.limits import Declaration, Learned


class FlowPort(Protocol):
    """
    What the ledger knows about the limits of providers.

    Raises:
        LedgerUnavailable: It may or may not have taken effect. Calling again with the same values is safe.
    """

    def publish(self, worker_id: str, declaration: Declaration) -> None:
        """
        Let a worker's declaration count for all workers from now on: the newest one counts.

        The lease of the process keeps which declaration it has published.
        """

    def learn(self, batch: Sequence[Learned]) -> None:
        """
        Keep limits that providers named in their responses.

        A provider that has less left than its bucket lowers the bucket, because others use the key too.
        """
