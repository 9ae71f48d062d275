"""
Counts what is really sent: a reverse proxy in front of a provider, in a process of its own.

It shares nothing with the ledger, so its count is a second witness of what `ai_call_log` says.

    python -m devkit.demo.counting_proxy --upstream https://api.openai.com/v1 --port 8080
"""

import argparse
import asyncio
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from devkit.servers.data_folder import mark_of
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import Program, Server
from devkit.simulator.journal import Counts, RequestJournal
from devkit.simulator.server import ATTEMPT_HEADER

COUNTS_PATH = "/__control/counts"
CONTROL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 20.0
UPSTREAM_TIMEOUT_S = 600.0
REQUEST_BYTES_MAX = 64 * 1024 * 1024

# They belong to one connection, not to what is passed on. Source: RFC 9110, section 7.6.1.
HOP_BY_HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"}
)


class CountingProxy:
    """
    Passes everything on to `upstream` inside a `with`, and counts it.

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
        """Return how many requests were passed on, and under which attempt ids."""
        url = f"http://{LOOPBACK}:{self._port}{COUNTS_PATH}"
        with urllib.request.urlopen(url, timeout=CONTROL_TIMEOUT_S) as answer:
            return Counts.model_validate_json(answer.read())

    def _program(self, port: int) -> Program:
        mark = mark_of(self._folder)
        options = {"upstream": self._upstream, "port": port, "mark": mark}
        return Program(
            name="counting proxy",
            argv=[
                *(sys.executable, "-m", "devkit.demo.counting_proxy"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            # `-m` finds the package in the working directory, installed or not.
            folder=Path(__file__).parents[2],
            log=self._folder / "proxy.log",
            ready_text="ready at",
            mark=mark,
            start_timeout_s=START_TIMEOUT_S,
        )


class ProxyServer:
    """The proxy's HTTP side: note the request, pass it on, bring the answer back."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.rstrip("/")
        self._book = RequestJournal()
        self._session: aiohttp.ClientSession

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application(client_max_size=REQUEST_BYTES_MAX)
        app.cleanup_ctx.append(self._upstream_session)
        app.router.add_get(COUNTS_PATH, self._counts)
        app.router.add_route("*", "/v1/{rest:.*}", self._pass_on)
        return app

    async def _upstream_session(self, _app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=UPSTREAM_TIMEOUT_S)
        # Bodies pass as they are, compressed or not.
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as self._session:
            yield

    async def _counts(self, _request: web.Request) -> web.Response:
        return web.json_response(text=self._book.counts().model_dump_json())

    async def _pass_on(self, request: web.Request) -> web.Response:
        # Counted before the first byte goes on: what is sent can be less than the count, never more.
        number = self._book.arrived(request.headers.get(ATTEMPT_HEADER))
        status = None
        try:
            response = await self._answer_to(request)
            status = response.status
        except aiohttp.ClientError as exc:
            response = web.Response(status=502, text=f"the provider cannot be reached: {exc}")
        finally:
            self._book.finished(number, status)
        return response

    async def _answer_to(self, request: web.Request) -> web.Response:
        async with self._session.request(
            request.method,
            f"{self._upstream}/{request.match_info['rest']}",
            headers=_passed_on(request.headers),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            return web.Response(
                status=answer.status, headers=_passed_on(answer.headers), body=await answer.read()
            )


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((n, value) for n, value in headers.items() if n.lower() not in HOP_BY_HOP)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m devkit.demo.counting_proxy")
    parser.add_argument("--upstream", required=True, help="the provider's base URL")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mark", help="a name for the process list")
    options = parser.parse_args()
    asyncio.run(_serve(ProxyServer(options.upstream), options.port))


async def _serve(server: ProxyServer, port: int) -> None:
    stop = asyncio.Event()
    for stopping in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stopping, stop.set)
    # A caller that leaves has its request abandoned upstream too.
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
        print(f"ready at http://{LOOPBACK}:{port}/v1", flush=True)  # noqa: T201 - its owner waits for it
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
