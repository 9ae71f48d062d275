"""
Whether this process lives, and whether it can work: what `/live` and `/ready` answer.

It lives as long as its event loop turns. It is ready if it can do its work now: the ledger and the broker answer, its
lease holds, it takes messages, and a worker that sends calls has a key that its provider does not refuse. A process
that is not ready needs no restart: it goes on by itself when what it waits for is back.

A thread of its own asks the broker and looks for keys every two seconds. The answers are made from memory.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

import structlog

from worker.status_server import Answer

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 2.0
LOOK_LATE_S = 30.0
"""A look that takes longer than this hangs: the broker's timeouts are shorter."""
BEAT_INTERVAL_S = 1.0
LATE_S = 5.0
"""After so long without a beat a loop counts as too busy to work."""
FROZEN_S = 30.0
"""After so long it will not turn again, and only a restart helps."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason why a process cannot work."""

    check: str
    """`ledger`, `lease`, `broker`, `intake`, `credentials`, `event_loop` or `shutdown`."""
    reason: str
    todo: str


class Beat:
    """When something last turned."""

    def __init__(self, *, has_begun: bool = True) -> None:
        self._at = time.monotonic() if has_begun else -math.inf

    def __call__(self) -> None:
        """Note that it turns."""
        self._at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since it last turned."""
        return time.monotonic() - self._at


Look = Callable[[], Fault | None]
"""Looks at one thing."""


async def beat_on_loop(beat: Beat) -> None:
    """Note every second that the event loop turns, until this is cancelled."""
    while True:
        beat()
        await asyncio.sleep(BEAT_INTERVAL_S)


class Health:
    """What is known of this process's health. Threads may share it."""

    def __init__(self, *, from_memory: tuple[Look, ...], asked: tuple[Look, ...]) -> None:
        """
        Know nothing yet: a process is not ready before its first look.

        Args:
            from_memory: Looks that never wait; part of each answer.
            asked: Looks that may wait for seconds; made by the thread.
        """
        self._from_memory = from_memory
        self._asked = asked
        self._found: tuple[Fault, ...] = (
            Fault("start", "the process has only just started", "Wait a few seconds."),
        )
        self._looked_at: Beat | None = None
        self._lock = threading.Lock()
        self._was_ready: bool | None = None
        """None before it was ready for the first time."""
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self.loop_beat = Beat()
        """Called on the event loop of the calls."""

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and be ready no more. It does not wait for a look that hangs."""
        self._is_ending.set()

    def faults(self) -> list[Fault]:
        """Why this process cannot work now; empty if it can."""
        found = [fault for look in self._from_memory if (fault := look())]
        found += self._found
        if self._looked_at is not None and self._looked_at.age_s > LOOK_LATE_S:
            found.append(Fault("health", "the look at broker and keys hangs", "Restart it."))
        if self.loop_beat.age_s > LATE_S:
            reason = f"the event loop has not turned for {self.loop_beat.age_s:.0f} s"
            found.append(Fault("event_loop", reason, "See /live; look at CPU and memory."))
        if self._is_ending.is_set():
            found.append(Fault("shutdown", "the process is stopping", "Nothing."))
        return found

    def live(self) -> Answer:
        """Answer `/live`."""
        age_s = self.loop_beat.age_s
        is_live = age_s < FROZEN_S
        body = {"is_live": is_live, "event_loop_turned_before_s": round(age_s, 1)}
        return Answer.of_json(body, HTTPStatus.OK if is_live else HTTPStatus.SERVICE_UNAVAILABLE)

    def ready(self) -> Answer:
        """Answer `/ready`."""
        faults = self.faults()
        self._note(faults)
        return readiness(faults)

    def look(self) -> None:
        """Ask what may take seconds."""
        self._found = tuple(fault for look in self._asked if (fault := look()))
        self._looked_at = Beat()
        self._note(self.faults())

    def _note(self, faults: list[Fault]) -> None:
        """Log when readiness changes. That a process stops is no news."""
        if self._is_ending.is_set():
            return
        with self._lock:
            was_ready = self._was_ready
            # A process that starts is not ready yet, which is no news.
            self._was_ready = None if was_ready is None and faults else not faults
        if faults and was_ready:
            reasons = [f"{fault.check}: {fault.reason}" for fault in faults]
            log.error("readiness.lost", reasons=reasons, todo=faults[0].todo)
        if not faults and was_ready is False:
            log.info("readiness.regained")

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                # Without this thread the process would answer with old news: an unforeseen error must not end it.
                log.exception("health_look.failed")
            if self._is_ending.wait(LOOK_INTERVAL_S):
                return


def readiness(faults: list[Fault]) -> Answer:
    """The answer of `/ready`: 200, or 503 with every reason."""
    body: dict[str, Any] = {"is_ready": not faults, "faults": [asdict(f) for f in faults]}
    return Answer.of_json(body, HTTPStatus.SERVICE_UNAVAILABLE if faults else HTTPStatus.OK)


def broker_look(ask: Callable[[], str | None]) -> Look:
    """A look at the broker."""

    def look() -> Fault | None:
        error = ask()
        if error is None:
            return None
        return Fault("broker", f"the broker does not answer ({error})", "Restore the broker.")

    return look
