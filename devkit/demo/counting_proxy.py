"""
A reverse proxy in front of a provider, in a process of its own, that counts the requests.

It shares nothing with the ledger, so its count can be compared with `ai_call_log`.

    python -m devkit.demo.counting_proxy --upstream https://api.openai.com/v1 --port 8080
"""

import argparse
import asyncio
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from devkit.servers.module_program import module_program
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import Program, Server
from devkit.simulator.journal import Counts, RequestJournal
from devkit.simulator.server import ATTEMPT_HEADER

COUNTS_PATH = "/__control/counts"
CONTROL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 20.0
UPSTREAM_TIMEOUT_S = 600.0
REQUEST_MAX_BYTES = 64 * 1024 * 1024

# Headers of one connection, which a proxy must not forward. Source: RFC 9110, section 7.6.1.
HOP_BY_HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"}
)


class CountingProxy:
    """
    Forwards every request to `upstream` inside a `with`, and counts it.

    Raises on entering:
        ServerFailed: it did not start; carries the end of its log.
    """

    base_url: str
    """What an OpenAI client takes as `base_url`."""
    server: Server

    def __init__(self, folder: Path, upstream: str) -> None:
        self._folder = folder
        self._upstream = upstream
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        serving = server_on_free_port(self._program, self._folder / "proxy.port")
        self.server, self._port = self._running.enter_context(serving)
        self.base_url = f"http://{LOOPBACK}:{self._port}/v1"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()

    def counts(self) -> Counts:
        """Return the counts of the requests so far."""
        url = f"http://{LOOPBACK}:{self._port}{COUNTS_PATH}"
        with urllib.request.urlopen(url, timeout=CONTROL_TIMEOUT_S) as answer:
            return Counts.model_validate_json(answer.read())

    def _program(self, port: int) -> Program:
        return module_program(
            "devkit.demo.counting_proxy",
            name="proxy",
            log_folder=self._folder,
            start_timeout_s=START_TIMEOUT_S,
            upstream=self._upstream,
            port=port,
        )


class ProxyServer:
    """The HTTP side of the proxy: counts each request, forwards it, and returns the answer."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.rstrip("/")
        self._journal = RequestJournal()
        self._session: aiohttp.ClientSession

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application(client_max_size=REQUEST_MAX_BYTES)
        app.cleanup_ctx.append(self._upstream_session)
        app.router.add_get(COUNTS_PATH, self._counts)
        app.router.add_route("*", "/v1/{rest:.*}", self._forward)
        return app

    async def _upstream_session(self, _app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=UPSTREAM_TIMEOUT_S)
        # Bodies are forwarded as they are, compressed or not.
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as self._session:
            yield

    async def _counts(self, _request: web.Request) -> web.Response:
        return web.json_response(text=self._journal.counts().model_dump_json())

    async def _forward(self, request: web.Request) -> web.Response:
        # Counted before the first byte is forwarded: the provider never receives more requests than were counted.
        number = self._journal.arrived(request.headers.get(ATTEMPT_HEADER))
        status = None
        try:
            response = await self._answer_to(request)
            status = response.status
        except aiohttp.ClientError as exc:
            response = web.Response(status=502, text=f"the provider cannot be reached: {exc}")
        finally:
            self._journal.finished(number, status)
        return response

    async def _answer_to(self, request: web.Request) -> web.Response:
        async with self._session.request(
            request.method,
            f"{self._upstream}/{request.match_info['rest']}",
            headers=_forwarded(request.headers),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            return web.Response(
                status=answer.status, headers=_forwarded(answer.headers), body=await answer.read()
            )


def _forwarded(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((n, value) for n, value in headers.items() if n.lower() not in HOP_BY_HOP)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m devkit.demo.counting_proxy")
    parser.add_argument("--upstream", required=True, help="the provider's base URL")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--process-tag", help="a name for the process list")
    options = parser.parse_args()
    asyncio.run(_serve(ProxyServer(options.upstream), options.port))


async def _serve(server: ProxyServer, port: int) -> None:
    stop = asyncio.Event()
    for stopping in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stopping, stop.set)
    # When a caller disconnects, its request to the provider is cancelled too.
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
        print(f"ready at http://{LOOPBACK}:{port}/v1", flush=True)  # noqa: T201 - the owner waits for this line
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
