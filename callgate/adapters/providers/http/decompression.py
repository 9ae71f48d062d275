"""gzip and deflate, undone piece by piece so that a small reply cannot become a large one in memory."""

from __future__ import annotations

import zlib

import httpx2

from callgate.adapters.providers.http.failures import ReplyTooLarge

MEMBERS_MAX = 1_000
"""gzip members in one reply. An empty member is 20 bytes to send and costs as much CPU as thousands of bytes."""
GZIP_START = b"\x1f"
GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Inflater:
    """
    Inflates gzip of any number of members, and deflate with or without zlib's header.

    The first byte decides which format it is, because servers confuse the names. Bytes after the end that do not start
    another gzip member are ignored as padding.

    Source: RFC 1950, 2.2; RFC 1951, 3.2.3; RFC 1952, 2.2.
    """

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None
        self._members_left = MEMBERS_MAX

    def inflate(self, data: bytes, max_bytes: int) -> bytes:
        """
        Inflate the next piece to at most `max_bytes` bytes. What lies beyond them is lost.

        Raises:
            ReplyTooLarge: The reply has more than `MEMBERS_MAX` gzip members.
            httpx2.DecodingError: The data is neither gzip nor deflate.
        """
        plain = bytearray()
        try:
            while data and len(plain) < max_bytes:
                if self._stream is None:
                    self._stream = zlib.decompressobj(_window_bits(data[0]))
                elif self._stream.eof:
                    data = data.lstrip(b"\0")
                    if not data.startswith(GZIP_START):
                        break
                    self._members_left -= 1
                    if self._members_left < 0:
                        raise ReplyTooLarge(f"more than {MEMBERS_MAX} members of gzip")
                    self._stream = zlib.decompressobj(GZIP_WINDOW)
                plain += self._stream.decompress(data, max_bytes - len(plain))
                data = self._stream.unused_data or self._stream.unconsumed_tail
        except zlib.error as exc:
            raise httpx2.DecodingError(str(exc)) from exc
        return bytes(plain)


def _window_bits(first_byte: int) -> int:
    """zlib's `wbits` argument for a stream that starts with this byte."""
    if first_byte == GZIP_START[0]:
        return GZIP_WINDOW
    return zlib.MAX_WBITS if first_byte % 16 == zlib.DEFLATED else -zlib.MAX_WBITS
