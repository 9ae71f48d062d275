"""Ask the broker whether it answers, over one connection that is kept."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery import Celery


class BrokerProbe:
    """For one thread. Each question is bounded by the broker's timeouts."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None

    def ask(self) -> str | None:
        """None if it answers, else the name of the error: its text may quote the URL."""
        try:
            if self._connection is None:
                self._connection = self._app.connection_for_write()
                # Not by way of a channel: that tries again and again.
                self._connection.connect()
            self._connection.default_channel.client.ping()
        except Exception as exc:
            # Each transport has errors of its own. All of them mean that the broker cannot be used.
            self.close()
            return type(exc).__name__
        return None

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.release()
