"""`callgate tenants`: which organisations a client's database login acts for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from callgate.cli.options import AsJson, parse_name
from callgate.cli.output import client_of, print_json, print_note, print_table
from callgate.domain.tenants import Tenant

Login = Annotated[str, typer.Argument(metavar="LOGIN", help="A member of callgate_client.")]
OfOrg = Annotated[str, typer.Argument(parser=parse_name, metavar="ORG")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    tenants = typer.Typer(
        no_args_is_help=True, help="Say which organisations a database login acts for."
    )
    tenants.command("grant")(grant)
    tenants.command("revoke")(revoke)
    tenants.command("list")(list_all)
    app.add_typer(tenants, name="tenants")


def grant(context: typer.Context, login: Login, org: OfOrg, as_json: AsJson = False) -> None:
    """
    Let a login act for one more organisation.

    JSON: an array of login and org_id: every organisation this login acts for now.
    """
    with client_of(context) as client:
        granted = client.tenants.grant(login, org)
    _print(granted.tenants, as_json)
    if granted.to_run is not None:
        print_note(
            f"the statements of {login} have no time limits yet; as its owner, run: {granted.to_run}"
        )


def revoke(context: typer.Context, login: Login, org: OfOrg, as_json: AsJson = False) -> None:
    """
    Take an organisation away from a login; exit 1 if it was not granted.

    JSON: as `tenants grant`.
    """
    with client_of(context) as client:
        revoked = client.tenants.revoke(login, org)
    _print(revoked.tenants, as_json)
    if not revoked.was_granted:
        print_note(f"{login} did not act for {org}")
        raise typer.Exit(1)


def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """
    List all logins with their organisations.

    JSON: an array of login and org_id.
    """
    with client_of(context) as client:
        tenants = client.tenants.all()
    _print(tenants, as_json)


def _print(tenants: Sequence[Tenant], as_json: bool) -> None:
    if as_json:
        print_json([tenant._asdict() for tenant in tenants])
    else:
        print_table(("!login", "!org"), tenants, "no login acts for an organisation")
