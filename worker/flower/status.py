"""What Flower's process says without a password, on an address of its own: `/live`, `/ready` and `/metrics`."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from prometheus_client import REGISTRY

from callgate.adapters.postgres.figures import PostgresFigures
from callgate.adapters.postgres.session import PostgresSession
from config.settings import WorkerSettings
from worker.metrics.figure_loop import pause_s, read_once
from worker.metrics.process_metrics import ProcessMetrics
from worker.status_server import Route, StatusServer


class FlowerStatus:
    """
    Shows the figures of the ledger, beside Flower's own metrics, also while no worker lives to show them.

    A thread of its own reads the ledger, so that pages do not wait for it.
    """

    def __init__(self, settings: WorkerSettings, routes: Mapping[str, Route]) -> None:
        """
        Prepare; nothing listens or connects before `start`.

        Args:
            routes: What else is answered, by path.
        """
        options = settings.worker
        url = settings.database_url.get_secret_value()
        self._session = PostgresSession(url, timeout_s=settings.ledger_timeout_s, pool_size=1)
        self._metrics = ProcessMetrics.of(PostgresFigures(self._session), options, REGISTRY)
        self._interval_s = options.metrics_interval_s
        self._server = StatusServer(
            {**routes, "/metrics": self._metrics.answer},
            address=options.status_address,
            port=options.flower_status_port,
        )
        self._is_asked = bool(options.flower_status_port)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="figures", daemon=True)

    def start(self) -> None:
        """
        Listen, and read figures.

        Raises:
            ConfigurationError: The address cannot be listened on.
        """
        self._server.start()
        if self._is_asked:
            self._thread.start()

    def stop(self) -> None:
        """Answer no more. It does not wait for a ledger that hangs."""
        self._ending.set()
        self._server.stop()

    def _run(self) -> None:
        while not self._ending.is_set():
            read_once(self._metrics.figures)
            self._ending.wait(pause_s(self._interval_s))
        self._session.close()
