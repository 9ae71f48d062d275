"""Calls to a hostile provider beside calls to an honest one: how long the others wait meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from callgate.adapters.providers.http.http_adapter import HTTPAdapter
from callgate.domain.provider import Failure, ProviderReply
from tests.support.openai_attempts import ATTEMPT, a_request
from tests.support.provider_worlds import (
    SocketServer,
    adapter_for,
    chat,
    sends_json,
)

MIB = 2**20
TIMEOUT_S = 30.0
LAG_MAX_S = 0.5
"""Far below the cost of each attack, far above the scheduling delay of a busy machine."""
Answer = ProviderReply | Failure


async def ask(
    provider: HTTPAdapter, org: str = "acme", timeout_s: float = TIMEOUT_S, **fields: Any
) -> Answer:
    """Make one attempt for an organisation."""
    request = a_request(**fields).model_copy(update={"org_id": org})
    return await provider.complete(request, attempt_id=ATTEMPT, timeout_s=timeout_s)


@dataclass
class Lag:
    """What the honest provider's callers experienced."""

    longest_s: float = 0.0
    answered: list[float] = field(default_factory=list)
    """Duration of each call to the honest provider, in seconds."""


@asynccontextmanager
async def bystander() -> AsyncIterator[Lag]:
    """Call an honest provider all the time, and measure the delay of the event loop."""
    lag = Lag()

    async def watch() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            lag.longest_s = max(lag.longest_s, time.monotonic() - begun - 0.005)

    async def call(provider: HTTPAdapter) -> None:
        while True:
            begun = time.monotonic()
            assert isinstance(await ask(provider, "globex"), ProviderReply)
            lag.answered.append(time.monotonic() - begun)

    async with SocketServer(sends_json(chat())) as server, adapter_for(server.base_url) as provider:
        await ask(provider)
        tasks = [asyncio.create_task(watch()), asyncio.create_task(call(provider))]
        await asyncio.sleep(0)
        try:
            yield lag
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
