"""The body of one request, which knows whether any of it was handed to the transport."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator


class RequestBody:
    """
    Bytes of one HTTP request, handed out at most once, from any thread.

    aiohttp asks for the body only after the connection is complete (DNS, the proxy's CONNECT, TLS), and it holds back
    the headers until it has the first piece of the body. So a body that was not handed out means that nothing was sent.

    Source: `ClientRequest.send`, `StreamWriter.write_headers` and `AsyncIterablePayload.write_with_length` of
    aiohttp 3.14.
    """

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content: bytes | None = content
        self._is_sent = False
        self._lock = threading.Lock()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._lock:
            content, self._content = self._content, None
            self._is_sent = self._is_sent or content is not None
        if content is None:
            raise RuntimeError("the request was sent or withdrawn before")
        yield content

    def withdraw(self) -> bool:
        """
        Drop the content, so that it can no longer be sent.

        Returns:
            True if no byte was handed to the transport.
        """
        with self._lock:
            self._content = None
            return not self._is_sent
