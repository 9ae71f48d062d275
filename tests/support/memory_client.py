"""A client over services in memory."""

from __future__ import annotations

import asyncio

from callgate.client import Client
from callgate.settings import ClientSettings
from tests.support.service_world import ServiceWorld


def client_over(world: ServiceWorld) -> Client:
    """A client of these services; its own Postgres and Redis do not exist."""
    settings = ClientSettings(
        database_url="postgresql+psycopg2://nobody@127.0.0.1:1/none",  # type: ignore[arg-type]
        broker_url="redis://127.0.0.1:1/0",  # type: ignore[arg-type]
    )
    return Client(
        settings,
        ledger=world.ledger,
        operations=world.ledger,
        ended=world.ledger.ended_calls,
        queue=world.queue,
        catalogue=world.catalogue,
    )


def work(world: ServiceWorld) -> None:
    """Run whatever was published."""
    while world.queue.calls:
        asyncio.run(world.run(world.queue.calls.pop(0)))
