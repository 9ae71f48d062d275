"""Grants and revokes answer with what the login may do afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

from callgate.domain.tenants import Tenant
from callgate.services.tenants import Granted, Revoked, TenantService


@dataclass
class Grants:
    """`TenantsPort` over a set."""

    tenants: set[Tenant] = field(default_factory=set)
    to_run: str | None = None

    def grant(self, tenant: Tenant) -> str | None:
        self.tenants.add(tenant)
        return self.to_run

    def revoke(self, tenant: Tenant) -> bool:
        was_granted = tenant in self.tenants
        self.tenants.discard(tenant)
        return was_granted

    def all(self) -> list[Tenant]:
        return sorted(self.tenants)


def test_a_grant_answers_with_all_organisations_of_the_login() -> None:
    """And with the statements that somebody else must run; other logins are not named."""
    tenants = TenantService(Grants({Tenant("ann", "acme"), Tenant("bob", "zeta")}, "ALTER ROLE"))

    granted = tenants.grant("ann", "nova")

    assert granted == Granted((Tenant("ann", "acme"), Tenant("ann", "nova")), "ALTER ROLE")


def test_a_revoke_says_whether_there_was_a_grant() -> None:
    """A second one takes nothing back."""
    tenants = TenantService(Grants({Tenant("ann", "acme")}))

    assert tenants.revoke("ann", "acme") == Revoked((), was_granted=True)
    assert tenants.revoke("ann", "acme") == Revoked((), was_granted=False)
    assert tenants.all() == []
