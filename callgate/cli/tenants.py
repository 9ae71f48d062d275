"""`callgate tenants`: which organisations a client's database login acts for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from callgate.cli.output import AsJson, client_of, name, print_json, print_table, say

if TYPE_CHECKING:
    from callgate.adapters.postgres.tenants import PostgresTenants, Tenant

Login = Annotated[str, typer.Argument(metavar="LOGIN", help="A member of callgate_client.")]
OfOrg = Annotated[str, typer.Argument(parser=name, metavar="ORG")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    tenants = typer.Typer(no_args_is_help=True, help="Say which database login acts for whom.")
    tenants.command("grant")(grant)
    tenants.command("revoke")(revoke)
    tenants.command("list")(list_all)
    app.add_typer(tenants, name="tenants")


def grant(context: typer.Context, login: Login, org: OfOrg, as_json: AsJson = False) -> None:
    """Let a login act for an organisation, and for no other but those it was granted before."""
    with _tenants(context) as tenants:
        to_run = tenants.grant(_tenant(login, org))
        _print([t for t in tenants.all() if t.login == login], as_json)
    if to_run is not None:
        say(f"{login} has no limits of time yet; run as who may alter it: {to_run}")


def revoke(context: typer.Context, login: Login, org: OfOrg, as_json: AsJson = False) -> None:
    """Take it back; exit 1 if it was not granted."""
    with _tenants(context) as tenants:
        was_granted = tenants.revoke(_tenant(login, org))
        _print([t for t in tenants.all() if t.login == login], as_json)
    if not was_granted:
        say(f"{login} did not act for {org}")
        raise typer.Exit(1)


def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List all logins with their organisations."""
    with _tenants(context) as tenants:
        _print(tenants.all(), as_json)


@contextmanager
def _tenants(context: typer.Context) -> Iterator[PostgresTenants]:
    """Logins are the database's, not a port's: whatever else keeps a ledger knows none."""
    from callgate.adapters.postgres.session import PostgresSession
    from callgate.adapters.postgres.tenants import PostgresTenants

    with client_of(context) as client:
        settings = client.settings
        url = settings.database_url.get_secret_value()
        session = PostgresSession(url, timeout_s=settings.ledger_timeout_s, pool_size=1)
        try:
            yield PostgresTenants(session)
        finally:
            session.close()


def _tenant(login: str, org: str) -> Tenant:
    from callgate.adapters.postgres.tenants import Tenant

    return Tenant(login, org)


def _print(tenants: list[Tenant], as_json: bool) -> None:
    if as_json:
        print_json([tenant._asdict() for tenant in tenants])
    else:
        print_table(("!login", "!org"), tenants, "no login acts for an organisation")
