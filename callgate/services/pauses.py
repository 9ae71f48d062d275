"""Pause and resume calls, freeze and unfreeze organisations, by hand."""

from __future__ import annotations

from collections.abc import Collection

from callgate.domain.errors import InvalidRequest, UnknownProvider
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import By, CallFilter


def pause(
    operations: OperationsPort, key: PauseKey, providers: Collection[str], *, by: By
) -> Pause:
    """
    Keep the calls that a key covers from being sent; a freeze also refuses new submissions.

    Args:
        providers: Those of the catalogue.

    Raises:
        UnknownProvider: Neither the catalogue nor the ledger has the provider.
        LedgerUnavailable
    """
    known = not key.provider or key.provider in providers
    if not known and key.provider not in {b.provider for b in operations.breakers()}:
        raise UnknownProvider(f"neither the catalogue nor the ledger has provider {key.provider!r}")
    return operations.pause(key, by=by)


def resume(operations: OperationsPort, key: PauseKey, *, by: By) -> list[Pause]:
    """
    End a pause or a freeze.

    Returns:
        The pauses that may still cover some of its calls.

    Raises:
        InvalidRequest: There is no such pause.
        LedgerUnavailable
    """
    if not operations.resume(key, by=by):
        state = "frozen" if key.is_freeze else "paused"
        raise InvalidRequest(f"{key} is not {state}; see `callgate pauses`")
    return [other for other in operations.pauses() if _overlaps(key, other.key)]


def unused_names(operations: OperationsPort, key: PauseKey) -> list[str]:
    """The names of a pause that no call has used yet: they may be misspelt. A call type is not looked up."""
    unused = []
    if key.model and key.model not in {b.model for b in operations.breakers()}:
        unused.append(f"model {key.model}")
    if key.org_id and not operations.calls(CallFilter(org_id=key.org_id), limit=1):
        unused.append(f"organisation {key.org_id}")
    return unused


def _overlaps(one: PauseKey, other: PauseKey) -> bool:
    pairs = (
        (one.provider, other.provider),
        (one.model, other.model),
        (one.call_type, other.call_type),
        (one.org_id, other.org_id),
    )
    return all(a == b or "" in (a, b) for a, b in pairs)
