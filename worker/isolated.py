"""
Run calls one at a time, in a process of their own: the children of `worker.isolation.executor`.

    python -m worker.isolated        a nursery; each of its children reads ids of calls, and writes what each came to

Composed like a worker, from the same settings, but without a broker to take calls from and without a due loop.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from callgate.domain.calls import CallKey
from config.settings import WorkerSettings, load_worker_settings
from worker.bootstrap import Runtime, bootstrap, worker_app
from worker.isolation.forkserver import READY, serve_forks
from worker.main import Compose, configure_logging

bootstrap_alone: Compose = partial(bootstrap, quarantine_argv=None)


def serve(settings: WorkerSettings, compose: Compose = bootstrap_alone) -> None:
    """Fork children that run the calls they are told of; return when no more are wanted."""
    serve_forks(partial(_live, settings, compose))


def _live(settings: WorkerSettings, compose: Compose, passage: socket.socket) -> None:
    services = compose(settings, worker_app(settings))
    try:
        asyncio.run(_serve(services, passage))
    finally:
        services.close()


async def _serve(services: Runtime, passage: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=passage)
    async with services.running(run_shared_loops=False):
        writer.write(READY)
        while order := await reader.readline():
            executed = await services.llm.execute(CallKey.from_task_id(order.decode().strip()))
            writer.write(f"{executed.value}\n".encode())
            await writer.drain()
    writer.close()


def main() -> None:
    """Run with the real adapters."""
    settings = load_worker_settings()
    configure_logging(as_json=settings.worker.log_json)
    serve(settings)


if __name__ == "__main__":
    main()
