"""
Run work in the pool's threads, again and again until it succeeds.

For work that must not be lost and that only an outage makes fail. Its messages stay unacknowledged meanwhile: the
prefetch limit then stops the intake, and a worker that dies loses nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)

RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0

OnFinished = Callable[[bool], None]
"""Called in the hub thread: True when the work has succeeded, False when it was given up."""


def back_off_s(tries: int) -> float:
    """Return the pause after so many failed tries: doubling from 0.1 s up to 5 s, jittered by half."""
    longest: float = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(tries - 1, 16))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret


class RetryForever:
    """Retries work for one consumer, until the connection of that consumer is gone."""

    def __init__(self, consumer: Any, name: str) -> None:
        self._consumer = consumer
        self._name = name
        self._is_closed = False

    def start(self, work: Callable[[], None], on_finished: OnFinished, tries: int = 1) -> None:
        """Start a try in a thread of the pool; call from the hub thread."""
        if self._is_closed:
            on_finished(False)
            return
        self._consumer.pool.apply_async(
            self._run, (work, on_finished, tries), callback=_ignore_return_value
        )

    def close(self) -> None:
        """Start no further tries; those that run may end."""
        self._is_closed = True

    def _run(self, work: Callable[[], None], on_finished: OnFinished, tries: int) -> None:
        try:
            work()
        except BaseException as error:
            self._consumer.call_soon(self._back_off, work, on_finished, tries, error)
        else:
            self._consumer.call_soon(on_finished, True)

    def _back_off(
        self, work: Callable[[], None], on_finished: OnFinished, tries: int, error: BaseException
    ) -> None:
        delay_s = back_off_s(tries)
        log.warning(
            "background_work.failed",
            work=self._name,
            tries=tries,
            retry_after_s=round(delay_s, 1),
            reason=repr(error),
            exc_info=error,
        )
        self._consumer.timer.call_after(delay_s, self.start, (work, on_finished, tries + 1))


def _ignore_return_value(_: object) -> None:
    """Celery's pools require a callback for the return value."""
