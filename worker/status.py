"""What a worker process says about itself over HTTP: its health, composed from what the process knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from celery import Celery

from callgate.adapters.broker.app import CALL_QUEUE
from callgate.adapters.broker.probe import BrokerProbe
from callgate.adapters.file_credentials import FileCredentials
from callgate.domain import metrics
from callgate.domain.breaker import KEY_REFUSED_CODES
from callgate.domain.catalogue import Catalogue
from callgate.domain.metric_ports import LedgerFigures
from config.settings import WorkerSettings
from worker.celery_ext.pool import beat_in_hub
from worker.health import Beat, Fault, Health, Look, beat_on_loop, broker_look
from worker.status_server import Route, StatusServer

INTAKE_LATE_S = 10.0
"""The hub beats every second while it takes messages."""


class Status:
    """Runs from `start` to `stop`, beside the event loop of the calls."""

    def __init__(self, health: Health, server: StatusServer) -> None:
        self._health = health
        self._server = server
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    def of(
        cls,
        settings: WorkerSettings,
        app: Celery,
        catalogue: Catalogue,
        *,
        lease_epoch: Callable[[], datetime | None],
        healthy_since: Callable[[], float | None],
        figures: Callable[[], LedgerFigures | None],
        routes: Mapping[str, Route],
    ) -> Status:
        """
        Compose it.

        Args:
            lease_epoch: See `LeaseService.epoch`.
            healthy_since: See `RecoveryService.healthy_since`.
            figures: See `FigureReader.newest`.
            routes: What else is answered, by path.
        """
        intake = Beat(has_begun=False)
        beat_in_hub(app, intake)
        health = Health(
            from_memory=(
                ledger_look(healthy_since),
                lease_look(lease_epoch),
                intake_look(intake),
            ),
            asked=(
                broker_look(BrokerProbe(app).ask),
                credentials_look(
                    settings,
                    catalogue,
                    lambda: CALL_QUEUE in app.amqp.queues.consume_from,
                    lambda: refused_keys(figures()),
                ),
            ),
        )
        options = settings.worker
        all_routes = {"/live": health.live, "/ready": health.ready, **routes}
        server = StatusServer(all_routes, address=options.status_address, port=options.status_port)
        return cls(health, server)

    def start(self) -> None:
        """Start, on the running event loop."""
        self._server.start()
        self._beating = asyncio.create_task(beat_on_loop(self._health.loop_beat))
        self._health.start()

    def drain(self) -> None:
        """Be ready no more; go on answering."""
        self._health.stop()

    async def stop(self) -> None:
        """Answer no more."""
        self._health.stop()
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating
        await asyncio.to_thread(self._server.stop)


def ledger_look(healthy_since: Callable[[], float | None]) -> Look:
    """A look at whether the ledger answers this process."""

    def look() -> Fault | None:
        if healthy_since() is not None:
            return None
        return Fault("ledger", "the ledger does not answer", "Restore Postgres, or migrate it.")

    return look


def lease_look(epoch: Callable[[], datetime | None]) -> Look:
    """A look at the lease of this process."""

    def look() -> Fault | None:
        if epoch() is not None:
            return None
        reason = "the lease of this process may have run out, so it sends nothing"
        return Fault("lease", reason, "Check Postgres, and the worker's CPU.")

    return look


def intake_look(beat: Beat) -> Look:
    """A look at whether messages are taken."""

    def look() -> Fault | None:
        if beat.age_s < INTAKE_LATE_S:
            return None
        return Fault(
            "intake", "no message is taken from the broker", "See the broker; else restart it."
        )

    return look


def refused_keys(figures: LedgerFigures | None) -> dict[str, str]:
    """
    Providers that refuse their own key for all organisations, and why, as the ledger knew some seconds ago.

    Empty if its figures are too old.
    """
    found: dict[str, str] = {}
    for figure in figures.figures if figures else ():
        if figure.name == metrics.OPEN_BREAKERS.name:
            provider, _, key, calls_of, reason = figure.labels
            if (key, calls_of) == ("provider", "all") and reason in KEY_WIDE_CODES:
                found[provider] = reason
    return found


def credentials_look(
    settings: WorkerSettings,
    catalogue: Catalogue,
    sends_calls: Callable[[], bool],
    refused: Callable[[], Mapping[str, str]],
) -> Look:
    """A look at whether there is any key that can be used; `refused` are providers that refuse their own key."""
    folder = settings.worker.credentials_dir
    credentials = FileCredentials(settings.api_keys(catalogue.providers), folder)

    def look() -> Fault | None:
        if not sends_calls():
            return None
        providers = catalogue.providers.items()
        if any(not entry.needs_key for _, entry in providers):
            return None
        keys = {name: found for name, _ in providers if (found := credentials.keys(name))}
        if not keys:
            return Fault("credentials", f"no provider has an API key{_about(folder)}", TODO_KEY)
        why = refused()
        if any(name not in why or found != {name} for name, found in keys.items()):
            return None
        named = ", ".join(f"{name} ({why[name]})" for name in sorted(keys))
        return Fault("credentials", f"every API key is refused: {named}", TODO_REFUSED)

    return look


KEY_WIDE_CODES = KEY_REFUSED_CODES - {"permission_denied"}
"""Those that concern a key whatever the model: a key may have no right to one model and be good for others."""
TODO_REFUSED = "Put another key into CALLGATE_WORKER__CREDENTIALS_DIR, or see to the account; a probe tries it."
TODO_KEY = "Put a key into CALLGATE_WORKER__CREDENTIALS_DIR; a running worker reads it."


def _about(folder: Path | None) -> str:
    if folder is None:
        return ", and CALLGATE_WORKER__CREDENTIALS_DIR is not set"
    try:
        is_empty = not any(folder.iterdir())
    except OSError as exc:
        return f": the secrets folder cannot be read ({exc.strerror})"
    return (
        ": the secrets folder is empty" if is_empty else ": no file of the secrets folder has one"
    )
