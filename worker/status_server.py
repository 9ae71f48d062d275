"""
A small HTTP server for what a process says about itself: `/live`, `/ready`, `/metrics`.

It runs in a thread with its own event loop, so that it answers while the loop of the calls is busy or frozen. It is
bounded: so many connections, so many bytes, so many seconds, and one answer per connection. A route is a function that
answers from memory: while it runs, nobody else is answered.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from callgate.domain.errors import ConfigurationError

log = structlog.get_logger(__name__)

CONNECTIONS_MAX = 16
HEAD_MAX_BYTES = 8_192
CONNECTION_MAX_S = 5.0
START_MAX_S = 10.0
STOP_MAX_S = 10.0
TODO_PORT = "Set CALLGATE_WORKER__STATUS_PORT of this worker to a free port, or to 0 for none."
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def of_json(cls, value: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
        """Answer with JSON."""
        return cls(json.dumps(value, indent=2).encode() + b"\n", "application/json", status)


Route = Callable[[], Answer]

NOT_FOUND = Answer(b"not found\n", status=HTTPStatus.NOT_FOUND)
NOT_ALLOWED = Answer(b"only GET and HEAD\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
FAILED = Answer(b"this answer could not be made\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
BAD_REQUEST = Answer(b"not an HTTP request\n", status=HTTPStatus.BAD_REQUEST)


class StatusServer:
    """Answers from `start` to `stop`."""

    def __init__(self, routes: Mapping[str, Route], *, address: str, port: int) -> None:
        """
        Prepare; nothing listens before `start`.

        Args:
            routes: By path, without a query.
            port: 0 listens nowhere.
        """
        self._routes = dict(routes)
        self._address = address
        self._port = port
        self._connections = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._has_started = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """
        Listen. If another process has the port, this is logged, and the process goes on without.

        Raises:
            ConfigurationError: The address cannot be listened on.
        """
        if not self._port:
            return
        try:
            listener = _listener(self._address, self._port)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"CALLGATE_WORKER__STATUS_ADDRESS: {self._address}:{self._port} cannot be listened on"
                    f" ({exc.strerror})"
                ) from exc
            log.warning(
                "status_address.refused", address=self._address, port=self._port, todo=TODO_PORT
            )
            return
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener)), name="status", daemon=True
        )
        self._thread.start()
        self._has_started.wait(START_MAX_S)

    def stop(self) -> None:
        """Close. It may be called without `start`."""
        if self._thread is None or self._loop is None or self._ending is None:
            return
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(STOP_MAX_S)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=listener, limit=HEAD_MAX_BYTES)
        self._has_started.set()
        await self._ending.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(CONNECTION_MAX_S):
                    await self._converse(reader, writer)
        except (OSError, TimeoutError):
            # The other side went away, or was too slow. Its next request finds a new connection.
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(HEAD_END)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            method, answer = "GET", BAD_REQUEST
        else:
            method, answer = self._answer(head)
        writer.write(_head_of(answer) + (b"" if method == "HEAD" else answer.body))
        await writer.drain()

    def _answer(self, head: bytes) -> tuple[str, Answer]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "GET", BAD_REQUEST
        method, target, _ = words
        route = self._routes.get(target.partition("?")[0])
        if route is None:
            return method, NOT_FOUND
        if method not in ("GET", "HEAD"):
            return method, NOT_ALLOWED
        try:
            return method, route()
        except Exception:
            # A probe must learn that this process cannot say how it is.
            log.exception("status_answer.failed")
            return method, FAILED


def _listener(address: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(CONNECTIONS_MAX)
    except OSError:
        listener.close()
        raise
    return listener


def _head_of(answer: Answer) -> bytes:
    return (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
