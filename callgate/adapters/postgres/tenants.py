"""The organisations that a client's login acts for. Only the owner of the ledger changes them."""

from __future__ import annotations

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.tenants import Tenant

GRANT = """SELECT %(login)s::text AS login, callgate_bound_login_v1(%(login)s) AS to_run
  FROM (SELECT callgate_grant_tenant_v1(%(login)s, %(org_id)s)) granted"""
REVOKE = "DELETE FROM tenant_login WHERE login = %(login)s AND org_id = %(org_id)s RETURNING login"
TENANTS = "SELECT login, org_id FROM tenant_login ORDER BY login, org_id"


class PostgresTenants:
    """
    Grants and revokes organisations.

    Errors: LedgerUnavailable; ConfigurationError if this login is not the owner, or the other one is not a client.
    """

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def grant(self, tenant: Tenant) -> str | None:
        """
        Let a login of `callgate_client` submit, read and cancel calls of an organisation, from now on.

        Returns:
            The statements that limit the login's transactions, if this login may not run them.
        """
        (row,) = self._session.answers(GRANT, tenant._asdict())
        to_run: str | None = row.to_run
        return to_run

    def revoke(self, tenant: Tenant) -> bool:
        """Revoke it, also for open sessions. Returns False if it was not granted."""
        return bool(self._session.rows(REVOKE, tenant._asdict()))

    def all(self) -> list[Tenant]:
        """Every grant, by login."""
        return [Tenant(row.login, row.org_id) for row in self._session.answers(TENANTS, {})]
