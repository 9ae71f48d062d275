"""
Has sessions of clients ended that fill Postgres' table of locks, in a thread of its own.

Neither a busy event loop nor threads that wait for the ledger must delay it: while the table is full, all others wait.
"""

from __future__ import annotations

import random
import threading
import time

import structlog

from callgate.domain.errors import CallgateError
from callgate.domain.ports import LockWatchPort

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
"""Between two looks; jittered, so that workers do not all look at the same moment."""
ALERT_INTERVAL_S = 0.05
"""Between two looks while somebody fills the table again and again: filling it takes less than that."""
ALERT_S = 10.0
"""How long after the last find."""


class LockWatch:
    """Looks from `start` to `stop`, and logs what was ended."""

    def __init__(self, watch: LockWatchPort) -> None:
        """Prepare; no thread runs before `start`. `stop` closes the watch."""
        self._watch = watch
        self._alert_until = 0.0
        self._named: set[int] = set()
        """The sessions of the last look: one that takes a moment to go is logged once."""
        self._is_away = False
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lock-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Bounded by the ledger's timeout."""
        self._is_ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._watch.close()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._is_ending.wait(pause_s):
            self._look()
            is_alert = time.monotonic() < self._alert_until
            pause_s = ALERT_INTERVAL_S if is_alert else INTERVAL_S * random.uniform(0.5, 1.5)  # noqa: S311

    def _look(self) -> None:
        try:
            found = self._watch.look()
        except CallgateError as exc:
            self._say_away(str(exc))
            return
        except Exception:
            # Without this thread one client could stop everybody: an unforeseen error must not end it.
            log.exception("lock_watch.failed")
            return
        self._is_away = False
        if found:
            self._alert_until = time.monotonic() + ALERT_S
        for hoarder in found:
            if hoarder.pid not in self._named:
                event = "client_session.ended" if hoarder.was_ended else "client_session.end_failed"
                log.warning(event, login=hoarder.login, locks=hoarder.locks, pid=hoarder.pid)
        self._named = {hoarder.pid for hoarder in found}

    def _say_away(self, reason: str) -> None:
        """Log once per outage."""
        if not self._is_away:
            log.warning("lock_watch.ledger_unavailable", reason=reason)
        self._is_away = True
