"""`callgate doctor`: is everything there that a call needs, and what waits for an operator?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from callgate.cli.checkout import has_worker, worker_checks
from callgate.cli.options import AsJson
from callgate.cli.output import client_of, one_line, print_json
from callgate.cli.provider_checks import provider_checks
from callgate.domain.errors import ConfigurationError
from callgate.domain.fingerprints import digest_of, digests_of
from callgate.services.doctor import (
    SEVERITY,
    Check,
    Finding,
    FindingStatus,
    catalogue_check,
    failed_check,
    model_checks,
    run_checks,
)
from callgate.services.ended_checks import NOW_S, ended_check, ended_lately
from callgate.services.figure_checks import Figures, figure_checks
from callgate.services.ledger_checks import ledger_checks
from callgate.services.worker_checks import Own, alive_or_none, workers_check

if TYPE_CHECKING:
    from callgate.adapters.postgres.session import PostgresSession
    from callgate.client import Client
    from callgate.domain.catalogue import Catalogue

ASKED_AT_ONCE = 8
"""Providers that are asked about their keys at the same time, while the other checks run."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="PROVIDER/MODEL", help="The model to look up."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 3 if nothing fails and something warns.")
    ] = False,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Connect to no provider: ask about no key."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Check settings, servers, ledger, workers, prices and keys; docs/doctor.md explains each check.

    What is worst is printed last, and what to do below it. A provider is asked about its key only where its preset
    declares an endpoint that costs nothing; to the others only a connection is opened. No call is sent, and nothing is
    changed.

    Exit 0 if nothing fails, 1 if a check fails, 2 if the settings do; with --strict 3 if there are only warnings.

    JSON: an array of name, status (ok, warn or fail), sentence and todo (empty if ok), in the order of the checks.
    """
    findings = list(_findings(context, model, is_offline=offline))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    if code := exit_code(findings, is_strict=strict):
        raise typer.Exit(code)


def exit_code(findings: Sequence[Finding], *, is_strict: bool) -> int:
    """The exit code of the worst finding."""
    found = {finding.status for finding in findings}
    if FindingStatus.FAIL in found:
        return 2 if findings[0].status is FindingStatus.FAIL else 1
    return 3 if is_strict and FindingStatus.WARN in found else 0


def _print(findings: Sequence[Finding]) -> None:
    for finding in sorted(findings, key=lambda f: SEVERITY.index(f.status)):
        print(f"{finding.status.upper():4} {finding.name}: {one_line(finding.sentence)}")  # noqa: T201 - the answer
        if finding.todo:
            print(f"     -> {one_line(finding.todo)}")  # noqa: T201 - the answer


def _findings(context: typer.Context, model: str | None, *, is_offline: bool) -> Iterator[Finding]:
    try:
        client = client_of(context)
    except ConfigurationError as exc:
        yield from run_checks([failed_check("settings", exc)])
        return
    from callgate.adapters.postgres.session import PostgresSession

    settings = client.settings
    with client, ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        session = PostgresSession(
            settings.database_url.get_secret_value(),
            timeout_s=settings.ledger_timeout_s,
            pool_size=1,
        )
        began_s = time.monotonic()
        keys = [] if is_offline else provider_checks(client, session)
        checks = [*_checks(client, session, model), *_begun(keys, threads)]
        try:
            yield from run_checks(checks, elapsed_s=lambda: time.monotonic() - began_s)
        finally:
            session.close()


def _begun(checks: Sequence[Check], threads: ThreadPoolExecutor) -> list[Check]:
    """Checks that look already, so that slow providers are waited for once and not one after the other."""
    return [replace(check, look=threads.submit(check.look).result) for check in checks]


def _checks(client: Client, session: PostgresSession, model: str | None) -> list[Check]:
    from callgate.adapters.broker.checks import broker_checks
    from callgate.adapters.cost_calculator import CostCalculator
    from callgate.adapters.postgres.checks import database_checks
    from callgate.adapters.postgres.figures import PostgresFigures
    from callgate.adapters.postgres.fingerprints import PostgresFingerprints
    from callgate.adapters.postgres.version import SCHEMA_REVISION
    from callgate.adapters.token_estimator import TokenEstimator

    settings, catalogue = client.settings, client.catalogue
    figures = Figures(PostgresFigures(session))
    fingerprints, own = PostgresFingerprints(session), Own(SCHEMA_REVISION, None)
    if settings.catalogue:
        parts = catalogue.model_dump()
        own = Own(SCHEMA_REVISION, digest_of(parts), digests_of(parts))
    return [
        Check("settings", lambda: "valid"),
        *worker_checks(client),
        catalogue_check(settings.catalogue, catalogue),
        *database_checks(session),
        *ledger_checks(client.ledger, client.operations),
        *figure_checks(figures, lambda: ended_lately(client.operations, NOW_S)),
        ended_check(client.operations),
        *broker_checks(
            client.celery_app,
            timeout_s=settings.broker_timeout_s,
            count_alive=partial(alive_or_none, fingerprints),
        ),
        workers_check(fingerprints, own, lambda: figures.queued),
        *model_checks(
            catalogue,
            model,
            input_bound=TokenEstimator(catalogue).input_bound,
            costs=CostCalculator(catalogue),
            now=datetime.now(UTC),
        ),
        *([Check("transport", partial(_transport, catalogue))] if has_worker() else []),
    ]


def _transport(catalogue: Catalogue) -> str:
    from callgate.adapters.providers.http.environment import check_environment, variables_in_use

    check_environment(catalogue.providers)
    used = variables_in_use()
    suffix = f"; set and used: {', '.join(used)}" if used else ""
    return f"requests can leave a worker with this environment{suffix}"
