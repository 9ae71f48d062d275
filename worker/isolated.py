"""
The child processes of `worker.isolation.executor`: each runs quarantined calls, one at a time.

    python -m worker.isolated        a fork server; each child reads ids of calls, and writes the result of each

A child is composed like a worker, from the same settings, but consumes no queue and runs no shared loops.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from callgate.domain.calls import CallKey
from config.settings import WorkerSettings, load_worker_settings
from worker.app import Compose, worker_app
from worker.bootstrap import bootstrap
from worker.isolation.forkserver import READY, serve_forks
from worker.log_config import configure_logging
from worker.runtime import Runtime

bootstrap_alone: Compose = partial(bootstrap, quarantine_argv=None)


def serve(settings: WorkerSettings, compose: Compose = bootstrap_alone) -> None:
    """Serve forks of children that run calls; return when the worker wants no more and all children have ended."""
    serve_forks(partial(_run_child, settings, compose))


def _run_child(settings: WorkerSettings, compose: Compose, channel: socket.socket) -> None:
    runtime = compose(settings, worker_app(settings))
    try:
        asyncio.run(_serve(runtime, channel))
    finally:
        runtime.close()


async def _serve(runtime: Runtime, channel: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    async with runtime.running(run_shared_loops=False):
        writer.write(READY)
        while order := await reader.readline():
            result = await runtime.llm.execute(CallKey.from_task_id(order.decode().strip()))
            writer.write(f"{result.value}\n".encode())
            await writer.drain()
    writer.close()


def main() -> None:
    """Run with the real adapters."""
    settings = load_worker_settings()
    configure_logging(as_json=settings.worker.log_json)
    serve(settings)


if __name__ == "__main__":
    main()
