"""`callgate doctor`: is everything there that a call needs?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from callgate.cli.checkout import worker_credentials
from callgate.cli.options import AsJson
from callgate.cli.output import client_of, one_line, print_json
from callgate.domain.errors import ConfigurationError
from callgate.domain.provider import Failure
from callgate.services.doctor import (
    Check,
    Finding,
    FindingStatus,
    ledger_checks,
    model_checks,
    run_checks,
)
from callgate.services.providers import key_checks

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
    Check settings, database, broker, prices, tokenizer, transport and keys.

    A provider is asked about its key only where its preset declares an endpoint that costs nothing. No call is sent.

    Exit 1 if a check fails, 2 if the settings do.

    JSON: an array of name, status (ok, warn or fail) and sentence.
    """
    findings = list(_findings(context, model))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.status.upper():4} {finding.name}: {one_line(finding.sentence)}")  # noqa: T201 - the answer
    if any(finding.status is FindingStatus.FAIL for finding in findings):
        raise typer.Exit(2 if findings[0].status is FindingStatus.FAIL else 1)


def _findings(context: typer.Context, model: str | None) -> Iterator[Finding]:
    try:
        client = client_of(context)
    except ConfigurationError as exc:
        yield Finding("settings", FindingStatus.FAIL, str(exc))
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
            yield from run_checks(_checks(client, session, model))
        finally:
            session.close()


def _checks(client: Client, session: PostgresSession, model: str | None) -> list[Check]:
    from callgate.adapters.broker.checks import broker_checks
    from callgate.adapters.cost_calculator import CostCalculator
    from callgate.adapters.postgres.checks import database_checks
    from callgate.adapters.providers.http.environment import check_environment
    from callgate.adapters.token_estimator import TokenEstimator

    catalogue = client.catalogue

    def transport() -> str:
        check_environment(catalogue.providers)
        return "requests can leave a worker with this environment"

    return [
        Check("settings", lambda: "valid"),
        Check("catalogue", lambda: _catalogue(client)),
        *database_checks(session),
        *ledger_checks(client.ledger, client.operations),
        *broker_checks(client.celery_app, timeout_s=client.settings.broker_timeout_s),
        *model_checks(
            catalogue,
            model,
            input_bound=TokenEstimator(catalogue).input_bound,
            costs=CostCalculator(catalogue),
            now=datetime.now(UTC),
        ),
        Check("transport", transport),
        *_key_checks(client),
    ]


def _key_checks(client: Client) -> list[Check]:
    from callgate.adapters.providers import adapter_class
    from callgate.adapters.providers.http.http_adapter import HTTPAdapter
    from callgate.adapters.providers.http.key_check import check_key

    try:
        credentials = worker_credentials(client)
    except ConfigurationError as exc:
        return [Check("keys", partial(_failed, exc))]

    def ask(name: str, path: str) -> Failure | None:
        entry = client.catalogue.providers[name]
        adapter = adapter_class(entry.protocol)(name, entry, credentials, connections_max=1)
        assert isinstance(adapter, HTTPAdapter)
        return check_key(adapter, path)

    return key_checks(client.catalogue, credentials, ask)


def _failed(exc: ConfigurationError) -> str:
    raise exc


def _catalogue(client: Client) -> str:
    file = client.settings.catalogue or "the defaults (CALLGATE_CATALOGUE is not set)"
    return f"{file}; providers: {', '.join(sorted(client.catalogue.providers))}"
