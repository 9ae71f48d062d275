"""
Loggers of callgate's events.

A pipeline's standard output is its own. structlog prints there unless the process has configured it. So in a process
that has not, events go to the standard `logging`: with its defaults only warnings and errors are shown, on stderr.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["EventLog", "event_log"]


def event_log(name: str) -> EventLog:
    """Return the logger of a module."""
    return EventLog(name)


class EventLog:
    """Logs events with fields: through structlog as the process has configured it, else through `logging`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, event: str, **fields: Any) -> None:
        """Log what is worth knowing."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what may need somebody."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what needs somebody."""
        self._log(logging.ERROR, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        # A process that has configured structlog has imported it, before callgate or after. One that has not is spared
        # the import: structlog loads rich.
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            structlog.get_logger(self._name).log(level, event, **fields)
            return
        words = [event, *(f"{name}={value!r}" for name, value in fields.items())]
        logging.getLogger(self._name).log(level, "%s", " ".join(words))
