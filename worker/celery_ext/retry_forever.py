"""
Run work in the pool's threads again and again until it succeeds.

For work that must not be lost and whose only way to fail is an outage. Its messages stay
unacknowledged meanwhile, so the prefetch limit stops the intake and a dead worker loses nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0

Ended = Callable[[bool], None]
"""Hears in the hub thread whether the work is done (True) or was given up (False)."""


def back_off_s(attempt: int) -> float:
    """Return the pause after a failed attempt: doubling from 0.1 s up to 5 s, jittered by half."""
    longest: float = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(attempt - 1, 16))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret


class RetryForever:
    """Retry work on behalf of one consumer, until that consumer's connection is gone."""

    def __init__(self, consumer: Any, name: str) -> None:
        self._consumer = consumer
        self._name = name
        self._is_closed = False

    def start(self, work: Callable[[], None], ended: Ended, attempt: int = 1) -> None:
        """Begin an attempt in a thread of the pool; call from the hub thread."""
        if self._is_closed:
            ended(False)
            return
        self._consumer.pool.apply_async(
            self._run, (work, ended, attempt), callback=_ignore_returned
        )

    def close(self) -> None:
        """Let the attempts that run end, and begin no more."""
        self._is_closed = True

    def _run(self, work: Callable[[], None], ended: Ended, attempt: int) -> None:
        try:
            work()
        except BaseException as error:
            self._consumer.call_soon(self._back_off, work, ended, attempt, error)
        else:
            self._consumer.call_soon(ended, True)

    def _back_off(
        self, work: Callable[[], None], ended: Ended, attempt: int, error: BaseException
    ) -> None:
        delay_s = back_off_s(attempt)
        logger.warning(
            "%s failed, attempt %d, next in %.1f s: %r",
            *(self._name, attempt, delay_s, error),
            exc_info=error,
        )
        self._consumer.timer.call_after(delay_s, self.start, (work, ended, attempt + 1))


def _ignore_returned(_: object) -> None:
    """Celery's pools insist on somebody to tell what the work returned."""
