"""`callgate doctor`: is everything there that a call needs?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from callgate.cli.options import AsJson
from callgate.cli.output import client_of, one_line, print_json
from callgate.domain.errors import (
    ConfigurationError,
)
from callgate.services.doctor import (
    Check,
    CheckStatus,
    Probe,
    ledger_probes,
    model_probes,
    run_probes,
)

if TYPE_CHECKING:
    from callgate.adapters.postgres.session import PostgresSession
    from callgate.client import Client


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="PROVIDER/MODEL", help="The model to look up."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Check settings, database, broker, prices, tokenizer and transport.

    Exit 1 if a check fails, 2 if the settings do.

    JSON: an array of name, status (ok, warn or fail) and sentence.
    """
    checks = list(_checks(context, model))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{check.status.upper():4} {check.name}: {one_line(check.sentence)}")  # noqa: T201 - the answer
    if any(check.status is CheckStatus.FAIL for check in checks):
        raise typer.Exit(2 if checks[0].status is CheckStatus.FAIL else 1)


def _checks(context: typer.Context, model: str | None) -> Iterator[Check]:
    try:
        client = client_of(context)
    except ConfigurationError as exc:
        yield Check("settings", CheckStatus.FAIL, str(exc))
        return
    from callgate.adapters.postgres.session import PostgresSession

    settings = client.settings
    with client:
        session = PostgresSession(
            settings.database_url.get_secret_value(),
            timeout_s=settings.ledger_timeout_s,
            pool_size=1,
        )
        try:
            yield from run_probes(_probes(client, session, model))
        finally:
            session.close()


def _probes(client: Client, session: PostgresSession, model: str | None) -> list[Probe]:
    from callgate.adapters.broker.probes import broker_probes
    from callgate.adapters.cost_calculator import CostCalculator
    from callgate.adapters.postgres.probes import database_probes
    from callgate.adapters.providers.http.environment import check_environment
    from callgate.adapters.token_estimator import TokenEstimator

    catalogue = client.catalogue

    def transport() -> str:
        check_environment(catalogue.providers)
        return "requests can leave a worker with this environment"

    return [
        Probe("settings", lambda: "valid"),
        Probe("catalogue", lambda: _catalogue(client)),
        *database_probes(session),
        *ledger_probes(client.ledger, client.operations),
        *broker_probes(client.celery_app, timeout_s=client.settings.broker_timeout_s),
        *model_probes(
            catalogue,
            model,
            input_bound=TokenEstimator(catalogue).input_bound,
            costs=CostCalculator(catalogue),
            now=datetime.now(UTC),
        ),
        Probe("transport", transport),
    ]


def _catalogue(client: Client) -> str:
    file = client.settings.catalogue or "the defaults (CALLGATE_CATALOGUE is not set)"
    return f"{file}; providers: {', '.join(sorted(client.catalogue.providers))}"
