"""Tenants: which organisations a client's database login acts for."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Tenant(NamedTuple):
    """One login, and one organisation it acts for."""

    login: str
    org_id: str


class TenantsPort(Protocol):
    """
    Grants and revokes; only the login that owns the tables may call it.

    Raises:
        ConfigurationError: This login does not own the tables, or the other login is not a client's.
        LedgerUnavailable: The ledger did not answer.
    """

    def grant(self, tenant: Tenant) -> str | None:
        """
        Let a client's login submit, read and cancel calls of an organisation.

        Returns:
            The statements that limit how long the login's own statements run, if this login may not execute them.
        """

    def revoke(self, tenant: Tenant) -> bool:
        """Take a grant back, also from open sessions; False if there was none."""

    def all(self) -> list[Tenant]:
        """Every grant, by login."""
