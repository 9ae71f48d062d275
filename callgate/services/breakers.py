"""List the breakers of providers, open and close them by hand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from callgate.domain.errors import InvalidRequest, UnknownProvider
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import BreakerLine, By


@dataclass(frozen=True, slots=True)
class BreakerKey:
    """Which calls a breaker stops."""

    provider: str
    model: str
    credential: str = ""
    """The organisation whose own key is used; empty: the provider's key."""
    org_id: str = ""
    """Only this organisation's calls; empty: every organisation's."""

    @classmethod
    def of(cls, line: BreakerLine) -> BreakerKey:
        """The key of a breaker."""
        return cls(line.provider, line.model, line.credential, line.org_id)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.provider, self.model, self.credential, self.org_id)))


def list_breakers(
    operations: OperationsPort, provider: str | None = None, model: str | None = None
) -> list[BreakerLine]:
    """List the breakers of a provider, of a model, or all."""
    return [
        b
        for b in operations.breakers()
        if provider in (None, b.provider) and model in (None, b.model)
    ]


def open_breaker(
    operations: OperationsPort,
    key: BreakerKey,
    providers: Collection[str],
    *,
    seen_at: datetime | None = None,
    by: By,
) -> tuple[BreakerLine, bool]:
    """
    Open a breaker.

    Args:
        providers: Those of the catalogue.
        seen_at: When the operator saw that it changed last.

    Returns:
        The breaker, and whether it is new: then its name may be misspelt.

    Raises:
        UnknownProvider: Neither the catalogue nor the ledger has the provider.
        ChangedMeanwhile: It has changed since `seen_at`.
        LedgerUnavailable
    """
    is_new = key not in map(BreakerKey.of, operations.breakers())
    if is_new and key.provider not in providers:
        raise UnknownProvider(f"neither the catalogue nor the ledger has provider {key.provider!r}")
    return _set(operations, key, is_open=True, seen_at=seen_at, by=by), is_new


def close_breaker(
    operations: OperationsPort, key: BreakerKey, *, seen_at: datetime | None = None, by: By
) -> BreakerLine:
    """
    Close a breaker.

    Raises:
        InvalidRequest: There is no such breaker.
        ChangedMeanwhile: It has changed since `seen_at`.
        LedgerUnavailable
    """
    if key not in map(BreakerKey.of, operations.breakers()):
        raise InvalidRequest(f"there is no breaker for {key}")
    return _set(operations, key, is_open=False, seen_at=seen_at, by=by)


def would_close(operations: OperationsPort, key: BreakerKey) -> list[str]:
    """Whose open breakers closing this one closes: organisations; first an empty text for the shared one."""
    found = (BreakerKey.of(line) for line in operations.breakers() if line.is_open)
    return sorted(
        open_key.org_id for open_key in found if key in (open_key, replace(open_key, org_id=""))
    )


def _set(
    operations: OperationsPort, key: BreakerKey, *, is_open: bool, seen_at: datetime | None, by: By
) -> BreakerLine:
    names = key.provider, key.model, key.credential, key.org_id
    return operations.set_breaker(*names, is_open=is_open, seen_at=seen_at, by=by)
