"""The result of one delivery of a call task."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DeliveryResult(StrEnum):
    """The result of one delivery of a call task."""

    ANSWERED = "answered"
    REFUSED = "refused"
    NOT_CLAIMED = "not_claimed"
    """Another delivery has the call, or the call has ended. Nothing was done."""
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    """Nothing was claimed. A sweep will publish the call again."""
    LOCKED = "locked"
    """Another transaction held the call. It stays queued, and is published again when it is free."""
    DEFERRED = "deferred"
    """The call waits in the ledger: a quarantined one for a free process, a large one for memory."""
    WORKER_LOST = "worker_lost"
    """The process that ran a quarantined call has died. That counts as a worker loss."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """No process is free for a quarantined call. It is tried again after `retry_after_s`."""

    retry_after_s: float
