"""Run callbacks of other threads in the hub thread (the thread of Celery's event loop)."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

log = structlog.get_logger(__name__)

Callback = Callable[[], object]


class HubInbox:
    """
    Callbacks from any thread, run in the hub thread in the order of their submission.

    Not `hub.call_soon`: what such a callback schedules in turn, for example an ack, waits until the hub's next poll
    returns. When every slot is taken, only a timer ends that poll.
    """

    def __init__(self) -> None:
        self._callbacks: deque[Callback] = deque()
        self._wake_tx, self._wake_rx = socket.socketpair()
        self._wake_tx.setblocking(False)
        self._wake_rx.setblocking(False)
        self._is_woken = False

    def attach(self, hub: Any) -> None:
        """Have the hub read the inbox; call again after each lost connection, which clears the hub's readers."""
        hub.add_reader(self._wake_rx, self.read)

    def submit(self, callback: Callback) -> None:
        """Add a callback and wake the hub; one system call serves all callbacks until the hub reads."""
        self._callbacks.append(callback)
        if not self._is_woken:
            self._is_woken = True
            self.wake()

    def wake(self) -> None:
        """Wake the hub. Takes no lock, so a signal handler may call it."""
        with suppress(OSError):
            self._wake_tx.send(b"\0")

    def read(self) -> None:
        """Run all callbacks; one that fails is logged and does not stop the others."""
        with suppress(OSError):
            self._wake_rx.recv(4096)
        # The flag is cleared before the queue is emptied: a callback submitted meanwhile runs now, or wakes the hub.
        self._is_woken = False
        while self._callbacks:
            callback = self._callbacks.popleft()
            try:
                callback()
            # An error that leaves here would end the hub's loop, and the worker with it.
            except Exception:
                log.exception("hub_callback.failed")

    def close(self) -> None:
        """Close the sockets; callbacks submitted from now on never run."""
        self._wake_tx.close()
        self._wake_rx.close()
