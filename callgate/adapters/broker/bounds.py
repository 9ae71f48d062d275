"""
What one reply of the broker may put into memory.

A list item, a broadcast or a member of a set is as long as its sender made it, up to 512 MB. What is longer than an
item may be is read past, without being kept: its head is handed on, and is no JSON any more. The connection goes on,
so a long item takes neither its neighbours along nor the connection, and it does not come again.
"""

from __future__ import annotations

import io
from typing import Any

from redis._parsers import _RESP3Parser
from redis._parsers.socket import SENTINEL, SocketBuffer
from redis.exceptions import ConnectionError as RedisConnectionError

ITEM_BYTES_MAX = 2**20
"""Of one string; the least that `proto-max-bulk-len` can be."""
REPLY_BYTES_MAX = 24 * 2**20
"""Of all strings of one reply: sixteen items at once, and some room."""
STRING_BYTES = 64
"""What a string needs beside its bytes: a set of millions of short ones is large, too."""
READ_AT_ONCE_BYTES = 2**16


class BoundedBuffer(SocketBuffer):
    """redis-py's buffer, which would keep what was announced, and what was read in a burst."""

    _buffer: io.BytesIO
    _taken_bytes = 0
    _is_cut = False
    """Whether the start of the reply is gone, so that it cannot be read again from there."""

    def read(self, length: int, timeout: Any = SENTINEL) -> bytes:
        """
        Read a string of `length` bytes and its end of line; of a long one only the head.

        Raises:
            redis.exceptions.ConnectionError: The reply as a whole is too long.
        """
        self._taken_bytes += min(length, ITEM_BYTES_MAX) + STRING_BYTES
        if self._taken_bytes > REPLY_BYTES_MAX:
            raise RedisConnectionError(f"the broker's reply has more than {REPLY_BYTES_MAX} bytes")
        if length <= ITEM_BYTES_MAX:
            return bytes(super().read(length, timeout=timeout))
        head = bytes(super().read(ITEM_BYTES_MAX - 2, timeout=timeout))
        self._read_past(length + 2 - ITEM_BYTES_MAX, timeout)
        return head

    def _read_past(self, left: int, timeout: Any) -> None:
        self._is_cut = True
        while left:
            passed = self._buffer.read(min(left, READ_AT_ONCE_BYTES))
            left -= len(passed)
            if not passed:
                self._forget_what_was_read()
                self._read_from_socket(timeout=timeout)

    def purge(self) -> None:
        """Forget what was read; stock does so only when nothing is left, which in a burst is never."""
        self._taken_bytes, self._is_cut = 0, False
        if self._buffer.tell() >= READ_AT_ONCE_BYTES or not self.unread_bytes():
            self._forget_what_was_read()

    def rewind(self, pos: int) -> None:
        """Go back to the start of a reply that could not be read to its end."""
        if self._is_cut:
            raise RedisConnectionError("the broker stopped in the middle of a long item")
        self._taken_bytes = 0
        super().rewind(pos)

    def _forget_what_was_read(self) -> None:
        self._buffer = io.BytesIO(self._buffer.read())


class BoundedParser(_RESP3Parser):
    """redis-py's parser in Python, over a bounded buffer; also where hiredis is installed."""

    def on_connect(self, connection: Any) -> None:
        """Take the buffer of ours."""
        super().on_connect(connection)
        self._buffer = BoundedBuffer(
            connection._sock, self.socket_read_size, connection.socket_timeout
        )
