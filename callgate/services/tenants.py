"""Say which organisations a client's database login acts for, and see the result."""

from __future__ import annotations

from dataclasses import dataclass

from callgate.domain.tenants import Tenant, TenantsPort


@dataclass(frozen=True, slots=True)
class Granted:
    """What a login may do after a grant."""

    tenants: tuple[Tenant, ...]
    """Every organisation the login acts for now."""
    to_run: str | None
    """Statements that the owner of the login must still run, so that the login's statements have time limits."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a login may do after a grant was taken back."""

    tenants: tuple[Tenant, ...]
    was_granted: bool


class TenantService:
    """Grants and revokes."""

    def __init__(self, port: TenantsPort) -> None:
        self._port = port

    def grant(self, login: str, org_id: str) -> Granted:
        """
        Let a login act for one more organisation.

        Raises:
            ConfigurationError, LedgerUnavailable: See `TenantsPort`.
        """
        to_run = self._port.grant(Tenant(login, org_id))
        return Granted(self._of(login), to_run)

    def revoke(self, login: str, org_id: str) -> Revoked:
        """
        Take one organisation away from a login.

        Raises:
            ConfigurationError, LedgerUnavailable: See `TenantsPort`.
        """
        was_granted = self._port.revoke(Tenant(login, org_id))
        return Revoked(self._of(login), was_granted)

    def all(self) -> list[Tenant]:
        """
        Every login with every organisation it acts for.

        Raises:
            ConfigurationError, LedgerUnavailable: See `TenantsPort`.
        """
        return self._port.all()

    def _of(self, login: str) -> tuple[Tenant, ...]:
        return tuple(tenant for tenant in self._port.all() if tenant.login == login)
