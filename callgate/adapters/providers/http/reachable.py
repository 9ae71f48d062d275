"""Opens a connection to each provider, and sends nothing: can a worker here reach it at all?"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from callgate.domain.urls import PORTS, host_of, url_fault

CONNECT_MAX_S = 5.0
AT_ONCE = 16


def unreachable(urls: Mapping[str, str]) -> dict[str, str]:
    """
    Open a connection to each URL, with TLS if it is https, within `CONNECT_MAX_S`.

    Args:
        urls: Base URLs by the names of providers.

    Returns:
        The providers that cannot be reached: host, port, and what failed.
    """
    return asyncio.run(_unreachable(urls))


async def _unreachable(urls: Mapping[str, str]) -> dict[str, str]:
    slots = asyncio.Semaphore(AT_ONCE)

    async def look(url: str) -> str | None:
        async with slots:
            return await _fault(url)

    faults = await asyncio.gather(*map(look, urls.values()))
    return {name: fault for name, fault in zip(urls, faults, strict=True) if fault is not None}


async def _fault(url: str) -> str | None:
    if url_fault(url):
        return "its base_url cannot be read"
    parts = urlsplit(url)
    is_tls, port = parts.scheme == "https", parts.port or PORTS.get(parts.scheme)
    try:
        async with asyncio.timeout(CONNECT_MAX_S):
            context = ssl.create_default_context() if is_tls else None
            _, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    except TimeoutError:
        return f"{host_of(url)}: no connection within {CONNECT_MAX_S:.0f} s"
    except (OSError, ValueError) as exc:
        return f"{host_of(url)}: {_words(exc)}"
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
    return None


def _words(exc: Exception) -> str:
    """What failed, without the exception's own text."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({exc.verify_message})"
    if isinstance(exc, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(exc, OSError) and type(exc).__name__ == "gaierror":
        return "the host name was not resolved"
    known = exc.errno if isinstance(exc, OSError) else None
    return os.strerror(known).lower() if known else type(exc).__name__
