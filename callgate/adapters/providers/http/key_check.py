"""Asks a provider whether it accepts the key, by the endpoint that its preset declares free. It never sends a call."""

from __future__ import annotations

import asyncio

from callgate.adapters.providers.http.http_adapter import HTTPAdapter
from callgate.domain.provider import Failure

CHECK_MAX_S = 5.0


def check_key(adapter: HTTPAdapter, path: str) -> Failure | None:
    """GET the path with the provider's own key, within `CHECK_MAX_S`; None if it was answered with a success."""

    async def checked() -> Failure | None:
        try:
            return await adapter.check_key(path, timeout_s=CHECK_MAX_S)
        finally:
            await adapter.aclose()

    return asyncio.run(checked())
