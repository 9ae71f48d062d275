"""`/live` and `/ready` of Flower. They need no password, like `/healthcheck`."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery
from tornado.ioloop import PeriodicCallback
from tornado.web import Application, RequestHandler

from callgate.adapters.broker.probe import BrokerProbe
from worker.health import BEAT_INTERVAL_S, Health, broker_look
from worker.status_server import Answer, Route


class HealthHandler(RequestHandler):
    """Answers what one function says."""

    def initialize(self, answer: Callable[[], Answer]) -> None:
        """Keep the function."""
        self._answer_now = answer

    def get(self) -> None:
        """Answer."""
        answer = self._answer_now()
        self.set_status(answer.status.value)
        self.set_header("Content-Type", answer.content_type)
        self.set_header("Cache-Control", "no-store")
        self.write(answer.body)


class FlowerHealth:
    """Flower can work if the broker answers; it has no ledger."""

    def __init__(self, app: Celery) -> None:
        self._health = Health(from_memory=(), asked=(broker_look(BrokerProbe(app).ask),))
        self._beating = PeriodicCallback(self._health.loop_beat, BEAT_INTERVAL_S * 1_000)

    def add_to(self, application: Application, url_prefix: str) -> None:
        """Add the two paths."""
        prefix = f"/{url_prefix}" if url_prefix else ""
        application.add_handlers(
            ".*",
            [
                (f"{prefix}{path}", HealthHandler, {"answer": route})
                for path, route in self.routes().items()
            ],
        )

    def routes(self) -> dict[str, Route]:
        """What answers, by path."""
        return {"/live": self._health.live, "/ready": self._health.ready}

    def start(self) -> None:
        """Start looking; the I/O loop is this thread's."""
        self._beating.start()
        self._health.start()

    def stop(self) -> None:
        """Look no more."""
        self._beating.stop()
        self._health.stop()
