"""
A limit on the memory that one reply of the broker takes.

A list item, a broadcast or a member of a set is as long as its sender made it, up to 512 MB. Of a string over the limit
only the head is kept, which is no longer valid JSON; the rest is read and dropped. The connection stays usable, so a
long item costs neither other items nor the connection, and it is not delivered again.
"""

from __future__ import annotations

import io
from typing import Any

from redis._parsers import _RESP3Parser
from redis._parsers.socket import SENTINEL, SocketBuffer
from redis.exceptions import ConnectionError as RedisConnectionError

ITEM_MAX_BYTES = 2**20
"""Of one string; the smallest value that `proto-max-bulk-len` accepts."""
REPLY_MAX_BYTES = 24 * 2**20
"""Of all strings of one reply: sixteen items, and some reserve."""
STRING_BYTES = 64
"""The overhead of one string: a set of millions of short strings is large, too."""
READ_AT_ONCE_BYTES = 2**16


class BoundedBuffer(SocketBuffer):
    """redis-py's buffer, with limits; the original keeps strings of any length, and all replies of a burst."""

    _buffer: io.BytesIO
    _taken_bytes = 0
    _is_cut = False
    """Whether the start of the reply was dropped, so that the reply cannot be read again."""

    def read(self, length: int, timeout: Any = SENTINEL) -> bytes:
        """
        Read a string of `length` bytes and its line end; of a long string return only the head.

        Raises:
            redis.exceptions.ConnectionError: The reply as a whole is too long.
        """
        self._taken_bytes += min(length, ITEM_MAX_BYTES) + STRING_BYTES
        if self._taken_bytes > REPLY_MAX_BYTES:
            raise RedisConnectionError(f"the broker's reply has more than {REPLY_MAX_BYTES} bytes")
        if length <= ITEM_MAX_BYTES:
            return bytes(super().read(length, timeout=timeout))
        head = bytes(super().read(ITEM_MAX_BYTES - 2, timeout=timeout))
        self._read_past(length + 2 - ITEM_MAX_BYTES, timeout)
        return head

    def _read_past(self, left: int, timeout: Any) -> None:
        self._is_cut = True
        while left:
            passed = self._buffer.read(min(left, READ_AT_ONCE_BYTES))
            left -= len(passed)
            if not passed:
                self._free_what_was_read()
                self._read_from_socket(timeout=timeout)

    def purge(self) -> None:
        """Free what was read. The original does so only when nothing is left, which never happens in a burst."""
        self._taken_bytes, self._is_cut = 0, False
        if self._buffer.tell() >= READ_AT_ONCE_BYTES or not self.unread_bytes():
            self._free_what_was_read()

    def rewind(self, pos: int) -> None:
        """Return to the start of a reply that is not complete yet."""
        if self._is_cut:
            raise RedisConnectionError("the broker stopped in the middle of a long item")
        self._taken_bytes = 0
        super().rewind(pos)

    def _free_what_was_read(self) -> None:
        self._buffer = io.BytesIO(self._buffer.read())


class BoundedParser(_RESP3Parser):
    """redis-py's Python parser with a bounded buffer; used even if hiredis is installed."""

    def on_connect(self, connection: Any) -> None:
        """Use our buffer."""
        super().on_connect(connection)
        self._buffer = BoundedBuffer(
            connection._sock, self.socket_read_size, connection.socket_timeout
        )
