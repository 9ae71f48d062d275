"""
Run calls one at a time, in a process of their own: the child of `worker.isolation`.

    python -m worker.isolated        reads ids of calls from standard input, writes what each came to

Composed like a worker, from the same settings, but without a broker to take calls from and without a due loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from typing import BinaryIO

from callgate.domain.ledger import CallKey
from config.settings import WorkerSettings, load_worker_settings
from worker.bootstrap import Services, bootstrap, worker_app
from worker.isolation import READY
from worker.main import Compose, configure_logging

bootstrap_alone: Compose = partial(bootstrap, isolated_by=None)


def serve(settings: WorkerSettings, compose: Compose = bootstrap_alone) -> None:
    """
    Run the calls that standard input names until it ends.

    Raises:
        ConfigurationError, LedgerUnavailable: It did not start.
    """
    # Whoever stops a whole group of processes must not stop a call that its worker's drain waits for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    answers = _standard_output()
    services = compose(settings, worker_app(settings))
    services.check()
    try:
        asyncio.run(_serve(services, answers))
    finally:
        services.close()


async def _serve(services: Services, answers: BinaryIO) -> None:
    async with services.running(takes_turns=False):
        answers.write(READY)
        while order := await asyncio.to_thread(sys.stdin.buffer.readline):
            executed = await services.llm.execute(CallKey.from_task_id(order.decode().strip()))
            answers.write(f"{executed.value}\n".encode())


def _standard_output() -> BinaryIO:
    """The pipe to the worker, for answers only: what anybody prints goes to the log."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Run with the real adapters."""
    settings = load_worker_settings()
    configure_logging(as_json=settings.worker.log_json)
    serve(settings)


if __name__ == "__main__":
    main()
