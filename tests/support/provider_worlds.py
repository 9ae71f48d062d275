"""
Providers for the provider contract: a `MemoryProvider`, alone or behind an HTTP server.

`SocketServer` is that server; `contract_providers` lists the protocols that it can speak. Tests pass functions for what
it does with a request or with a new connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, ClassVar, Self
from uuid import UUID

from callgate.adapters.memory.provider import MemoryProvider, Rule, Sent
from callgate.adapters.providers import adapter_class
from callgate.adapters.providers.http.http_adapter import ATTEMPT_HEADER, HTTPAdapter
from callgate.domain.access import Access
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.messages import ReasoningBlock
from callgate.domain.ports import LLMProviderPort
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest

KEY = "sk-test-0123456789abcdefghij"
TIMEOUT_S = 60.0
"""Timeout of the memory provider behind the server: longer than any test."""


@dataclass(frozen=True, slots=True)
class Received:
    """One HTTP request as the server read it; header names in lower case."""

    head: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The body as JSON, keys in the order they came."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields


Exchange = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]
Greeting = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class SocketServer:
    """A server on a free loopback port, in the test's own event loop; `received` holds every whole request."""

    def __init__(self, exchange: Exchange, greeting: Greeting | None = None) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.port = 0
        self._exchange = exchange
        self._greeting = greeting
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """The endpoint's base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if self._greeting is not None:
                await self._greeting(reader, writer)
            while not writer.is_closing():
                received = await read_request(reader)
                self.received.append(received)
                await self._exchange(received, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Received:
    """Read one request. Without a Content-Length it has no body."""
    head, _, fields = (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")
    pairs = (line.partition(": ") for line in fields.split("\r\n") if line)
    headers = {name.lower(): value for name, _, value in pairs}
    return Received(
        head, headers, await reader.readexactly(int(headers.get("content-length", "0")))
    )


def http(
    body: bytes,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    length: int | None = None,
) -> bytes:
    """A response; `length` lies about the size of its body."""
    sizes = {"content-length": str(len(body) if length is None else length)}
    lines = [f"{name}: {value}" for name, value in {**sizes, **(headers or {})}.items()]
    return "\r\n".join([f"HTTP/1.1 {status} Status", *lines, "", ""]).encode() + body


def sends_json(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Exchange:
    """Answer every request with this JSON."""
    return sends(http(json.dumps(body).encode(), status=status, headers=headers))


def sends(data: bytes, *, then_close: bool = False) -> Exchange:
    """Answer every request with these bytes."""

    async def exchange(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then_close:
            writer.close()

    return exchange


async def hangs(_received: object, _writer: asyncio.StreamWriter) -> None:
    """Read the request and never answer."""
    await asyncio.Event().wait()


async def closes(_received: object, writer: asyncio.StreamWriter) -> None:
    """Read the request and hang up."""
    writer.close()


async def resets(_received: object, writer: asyncio.StreamWriter) -> None:
    """Reset the connection (RST instead of FIN)."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def chat(text: str = "pong", **fields: object) -> dict[str, Any]:
    """A chat completion as OpenAI sends it."""
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        **fields,
    }


@dataclass(frozen=True, slots=True)
class Keys:
    """`CredentialsPort` with one key for all organisations, or none."""

    key: str | None = KEY
    has_folder: ClassVar[bool] = True

    def access(self, provider: str, org_id: str) -> Access:
        """The key; no organisation has its own."""
        return Access(self.key)

    def has_any(self, provider: str) -> bool:
        """Whether there is a key."""
        return self.key is not None


@asynccontextmanager
async def adapter_for(
    base_url: str | None, *, key: str | None = KEY, connections_max: int = 100, **entry: Any
) -> AsyncIterator[HTTPAdapter]:
    """An adapter of the entry's protocol that calls this address, or the default one."""
    declared = ProviderEntry(base_url=base_url, **entry)
    adapter = adapter_class(declared.protocol)(
        "openai", declared, Keys(key), connections_max=connections_max
    )
    assert isinstance(adapter, HTTPAdapter)
    try:
        yield adapter
    finally:
        await adapter.aclose()


@dataclass(frozen=True, slots=True)
class World:
    """A provider, and the memory provider that decides its answers."""

    provider: LLMProviderPort
    memory: MemoryProvider

    @property
    def sent(self) -> list[Sent]:
        """The requests that arrived."""
        return list(self.memory.sent)


@asynccontextmanager
async def memory_world(rules: Sequence[Rule]) -> AsyncIterator[World]:
    """The memory provider itself."""
    memory = MemoryProvider(rules)
    yield World(memory, memory)


@dataclass(frozen=True, slots=True)
class Wire:
    """A protocol from its server's side: it reads what an adapter writes, and the other way round."""

    request: Callable[[dict[str, Any]], LLMRequest]
    """Reads the body of a request."""
    replied: Callable[[ProviderReply], dict[str, Any]]
    """The body of a reply."""
    refused: Callable[[Failure], dict[str, Any]]
    """The body of a refusal."""
    request_id_header: str = "x-request-id"
    wait_header: str = "retry-after"


@dataclass(frozen=True, slots=True)
class ProviderUnderTest:
    """A provider of the contract, and what it can express. Called with rules, it opens a world."""

    name: str
    entry: ProviderEntry
    wire: Wire | None
    """None: the memory provider itself."""
    thought: ReasoningBlock | None = None
    """
    Reasoning as its server writes and reads it. What an adapter makes of it is its own affair.

    None: it sends none.
    """
    refusal_ending: str | None = None
    """The ending of every refusal, in OpenAI's words. None: a refusal may have any ending."""
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a `ProviderReply` that its server cannot say, each with what is read then."""
    unsaid_counts: tuple[str, ...] = ()
    """Counts of a usage that its server cannot say."""
    joins_system_roles: bool = False
    """True if it has one word for the roles `system` and `developer`."""

    def __call__(self, rules: Sequence[Rule]) -> AbstractAsyncContextManager[World]:
        """The provider, which follows rules."""
        if self.wire is None:
            return memory_world(rules)
        return http_world(rules, self.wire, self.entry)

    def said(self, reply: ProviderReply) -> ProviderReply:
        """The reply as its server can send it."""
        if reply.refusal is not None and self.refusal_ending is not None:
            reply = replace(reply, finish_reason=self.refusal_ending)
        usage = reply.usage and reply.usage.model_copy(update=dict.fromkeys(self.unsaid_counts, 0))
        calls = () if "tools" in self.entry.cannot else reply.tool_calls
        reasoning = () if self.thought is None else reply.reasoning
        return replace(reply, usage=usage, tool_calls=calls, reasoning=reasoning, **self.unsaid)

    def known(self, **fields: Any) -> dict[str, Any]:
        """Those fields of a request that it can express."""
        return {name: value for name, value in fields.items() if name not in self.entry.cannot}


@asynccontextmanager
async def http_world(
    rules: Sequence[Rule], wire: Wire, entry: ProviderEntry
) -> AsyncIterator[World]:
    """A protocol over HTTP, with the memory provider behind the server."""
    memory = MemoryProvider(rules)

    async def exchange(received: Received, writer: asyncio.StreamWriter) -> None:
        answer = await memory.complete(
            wire.request(received.fields),
            attempt_id=UUID(received.headers[ATTEMPT_HEADER.lower()]),
            timeout_s=TIMEOUT_S,
        )
        writer.write(_written(answer, wire))

    async with (
        SocketServer(exchange) as server,
        adapter_for(server.base_url, **entry.model_dump(exclude={"base_url"})) as adapter,
    ):
        yield World(adapter, memory)


def _written(answer: ProviderReply | Failure, wire: Wire) -> bytes:
    if isinstance(answer, Failure):
        wait_s = answer.retry_after_s
        headers = {} if wait_s is None else {wire.wait_header: str(wait_s)}
        body = wire.refused(answer)
        return http(json.dumps(body).encode(), status=answer.status or 500, headers=headers)
    request_id = answer.provider_request_id
    headers = {} if request_id is None else {wire.request_id_header: request_id}
    return http(json.dumps(wire.replied(answer)).encode(), headers=headers)
