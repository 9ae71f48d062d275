"""How other threads give the hub thread something to do."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

logger = logging.getLogger(__name__)

Callback = Callable[[], object]


class HubInbox:
    """
    Letters from any thread, read in the hub thread in the order they were posted.

    Not `hub.call_soon`: what such a callback calls soon itself, like an ack, waits until the hub's
    next poll returns, and with every slot full nothing but a timer ends that poll.
    """

    def __init__(self) -> None:
        self._letters: deque[Callback] = deque()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._is_rung = False

    def attach(self, hub: Any) -> None:
        """Have the hub read; again after each lost connection, for that empties the hub."""
        hub.add_reader(self._ear, self.read)

    def post(self, letter: Callback) -> None:
        """Leave a letter and wake the hub, with one system call for any number of letters."""
        self._letters.append(letter)
        if not self._is_rung:
            self._is_rung = True
            self.ring()

    def ring(self) -> None:
        """Wake the hub; takes no lock, so a signal handler may do it."""
        with suppress(OSError):
            self._bell.send(b"\0")

    def read(self) -> None:
        """Act on every letter; one that fails is logged and does not hold up the others."""
        with suppress(OSError):
            self._ear.recv(4096)
        # The flag falls before the box is emptied: a letter posted meanwhile is read now or later.
        self._is_rung = False
        while self._letters:
            letter = self._letters.popleft()
            try:
                letter()
            except Exception:
                logger.exception(
                    "a finished task could not be settled; its message still counts as taken"
                )

    def close(self) -> None:
        """Stop listening; letters posted from now on are never read."""
        self._bell.close()
        self._ear.close()
