"""Pause and resume calls, freeze and unfreeze organisations, by hand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from callgate.domain.errors import InvalidRequest, UnknownProvider
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import By


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause that has begun."""

    pause: Pause
    unused: list[str]
    """Its names that no call has used yet: they may be misspelt. A call type is not looked up."""


def pause(
    operations: OperationsPort,
    key: PauseKey,
    providers: Collection[str],
    *,
    is_new: bool = False,
    by: By,
) -> Paused:
    """
    Keep the calls that a key covers from being sent; a freeze also refuses new submissions.

    Args:
        providers: Those of the catalogue.
        is_new: Whether the operator saw no such pause.

    Raises:
        UnknownProvider: Neither the catalogue nor the ledger has the provider.
        ChangedMeanwhile: With `is_new`, and there is such a pause.
        LedgerUnavailable
    """
    known = not key.provider or key.provider in providers
    if not known and key.provider not in {b.provider for b in operations.breakers()}:
        raise UnknownProvider(f"neither the catalogue nor the ledger has provider {key.provider!r}")
    return Paused(operations.pause(key, is_new=is_new, by=by), _unused(operations, key))


def resume(
    operations: OperationsPort, key: PauseKey, *, seen_at: datetime | None = None, by: By
) -> list[Pause]:
    """
    End a pause or a freeze.

    Args:
        seen_at: When the operator saw that it began.

    Returns:
        The pauses that may still cover some of its calls.

    Raises:
        InvalidRequest: There is no such pause.
        ChangedMeanwhile: It began at another time than `seen_at`.
        LedgerUnavailable
    """
    if not operations.resume(key, seen_at=seen_at, by=by):
        state = "frozen" if key.is_freeze else "paused"
        raise InvalidRequest(f"{key} is not {state}; see `callgate pauses`")
    return [other for other in operations.pauses() if _overlaps(key, other.key)]


def _unused(operations: OperationsPort, key: PauseKey) -> list[str]:
    unused = []
    if key.model and key.model not in {b.model for b in operations.breakers()}:
        unused.append(f"model {key.model}")
    if key.org_id and not _is_known(operations, key.org_id):
        unused.append(f"organisation {key.org_id}")
    return unused


def _is_known(operations: OperationsPort, org_id: str) -> bool:
    """True if the organisation has a budget, as each has whose call was ever sent, or calls that are open."""
    if operations.budgets_by_name(org_id=org_id, limit=1):
        return True
    return operations.affected(PauseKey(org_id=org_id)).orgs > 0


def _overlaps(one: PauseKey, other: PauseKey) -> bool:
    pairs = (
        (one.provider, other.provider),
        (one.model, other.model),
        (one.call_type, other.call_type),
        (one.org_id, other.org_id),
    )
    return all(a == b or "" in (a, b) for a, b in pairs)
