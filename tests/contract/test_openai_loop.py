"""Calls through the provider's event loop: cancellation, shutdown and failure are reported; nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from callgate.adapters.providers.http.http_adapter import HTTPAdapter
from callgate.adapters.providers.http.provider_loop import ProviderLoop
from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.support.openai_attempts import ATTEMPT, a_request, unset_proxies
from tests.support.provider_worlds import SocketServer, adapter_for, chat, hangs, sends_json
from tests.support.waiting import until_async

TIMEOUT_S = 20.0
Asked = asyncio.Task[ProviderReply | Failure]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """After each test no thread is left, and asyncio has logged no lost task, coroutine or exception."""
    unset_proxies(monkeypatch)
    caplog.set_level(logging.WARNING, "asyncio")
    yield
    ended_by = time.monotonic() + TIMEOUT_S
    while threads := [t for t in threading.enumerate() if t.name.startswith("provider ")]:
        assert time.monotonic() < ended_by, threads
        threads[0].join(0.1)
    gc.collect()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def ask(provider: HTTPAdapter) -> Asked:
    """Start an attempt."""
    return asyncio.create_task(
        provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
    )


@asynccontextmanager
async def busy(provider: HTTPAdapter) -> AsyncIterator[None]:
    """Block the provider's loop, as a flood of bytes does."""
    begun, over = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        over.wait(TIMEOUT_S)

    held = asyncio.create_task(provider._loop.run(work()))
    await asyncio.to_thread(begun.wait, TIMEOUT_S)
    try:
        yield
    finally:
        over.set()
        await held


def test_a_cancelled_call_is_not_sent_later() -> None:
    """When the busy provider's loop reaches it, another worker may have its attempt."""

    async def run() -> int:
        async with (
            SocketServer(sends_json(chat())) as server,
            adapter_for(server.base_url) as provider,
        ):
            assert isinstance(await ask(provider), ProviderReply)
            async with busy(provider):
                asked = ask(provider)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
            assert isinstance(await ask(provider), ProviderReply)
            return len(server.received)

    assert asyncio.run(run()) == 2


def test_a_call_cancelled_in_flight_releases_its_connection() -> None:
    """With one connection at most, five cancelled calls follow each other."""

    async def run() -> None:
        async with (
            SocketServer(hangs) as server,
            adapter_for(server.base_url, connections_max=1) as provider,
        ):
            for number in range(1, 6):
                asked = ask(provider)
                await until_async(lambda number=number: len(server.received) == number)  # type: ignore[misc]
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked

    asyncio.run(run())


def test_a_stopped_loop_reports_whether_requests_were_sent() -> None:
    """A request that was sent may be billed. One that waited for its connection is not."""

    async def run() -> list[ProviderReply | Failure]:
        async with (
            SocketServer(hangs) as server,
            adapter_for(server.base_url, connections_max=1) as provider,
        ):
            sent = ask(provider)
            await until_async(lambda: len(server.received) == 1)
            waiting = ask(provider)
            await provider._loop.run(asyncio.sleep(0.05))
            provider._loop.stop()
            async with asyncio.timeout(TIMEOUT_S):
                return [await sent, await waiting]

    sent, waiting = asyncio.run(run())

    assert isinstance(sent, Failure)
    assert isinstance(waiting, Failure)
    assert (sent.code, sent.billing) == ("connection_lost", Billing.UNKNOWN)
    assert (waiting.code, waiting.billing) == ("connection_failed", Billing.UNBILLED)


def test_shutdown_cancels_calls_in_flight() -> None:
    """The callers' loop may be closed before the provider's loop reacts."""

    async def run() -> None:
        async with SocketServer(hangs) as server, adapter_for(server.base_url) as provider:
            calls = [ask(provider) for _ in range(20)]
            await until_async(lambda: len(server.received) == 20)
            for call in calls:
                call.cancel()
        for call in calls:
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(run())


def test_a_loop_that_cannot_start_fails_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free file descriptor the callers' loop would otherwise wait without end."""
    make = asyncio.new_event_loop

    def none_is_free() -> asyncio.AbstractEventLoop:
        if threading.current_thread().name.startswith("provider "):
            raise OSError(24, "Too many open files")
        return make()

    async def run() -> ProviderReply | Failure:
        async with (
            SocketServer(sends_json(chat())) as server,
            adapter_for(server.base_url) as provider,
        ):
            monkeypatch.setattr(asyncio.events, "new_event_loop", none_is_free)
            refused = await ask(provider)
            monkeypatch.undo()
            assert isinstance(await ask(provider), ProviderReply)
            return refused

    answers: list[ProviderReply | Failure] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(run())), daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)

    (refused,) = answers
    assert isinstance(refused, Failure)
    assert (refused.code, refused.retryable, refused.billing) == (
        "connection_failed",
        True,
        Billing.UNBILLED,
    )


def test_each_call_keeps_its_own_context_and_result() -> None:
    """Five hundred calls run at the same time."""
    whose = ContextVar[int]("whose")

    async def there(number: int) -> tuple[int, int, str]:
        await asyncio.sleep(0.001 * (number % 3))
        if number % 5 == 0:
            raise ValueError(number)
        return number, whose.get(), threading.current_thread().name

    async def here(loop: ProviderLoop, number: int) -> tuple[int, int, str] | ValueError:
        whose.set(number)
        try:
            return await loop.run(there(number))
        except ValueError as exc:
            return exc

    async def run() -> list[tuple[int, int, str] | ValueError]:
        loop = ProviderLoop("provider test")
        try:
            return await asyncio.gather(*(here(loop, number) for number in range(500)))
        finally:
            loop.stop()

    for number, result in enumerate(asyncio.run(run())):
        if number % 5 == 0:
            assert isinstance(result, ValueError)
            assert result.args == (number,)
        else:
            assert result == (number, number, "provider test")
