"""A broker, the queue under test, and a pipeline that wants its links delivered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery
from redis import Redis

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.links import Links
from callgate.adapters.broker.queue import CeleryQueue
from devkit.servers.embedded import DevServers
from tests.support.links import receive


@pytest.fixture
def valkey(services: DevServers) -> Iterator[Redis]:
    """The broker, empty."""
    with Redis.from_url(services.broker_url) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def queue(services: DevServers, valkey: Redis) -> Iterator[CeleryQueue]:
    """The queue under test."""
    app = build_app(services.broker_url, timeout_s=2)
    yield CeleryQueue(app, timeout_s=2)
    app.close()


@pytest.fixture
def pipeline(services: DevServers) -> Iterator[Celery]:
    """A pipeline's own app, with one task that has a queue of its own and one that has not."""
    app = Celery("pipeline", broker=services.broker_url, set_as_current=False)
    app.conf.task_default_queue = "pipeline"
    app.conf.task_routes = {"pipeline.store": {"queue": "pipeline.store"}}
    for name in ("pipeline.store", "pipeline.note"):
        app.task(name=name, shared=False)(receive)
    yield app
    app.close()


@pytest.fixture
def links(services: DevServers) -> Iterator[Links]:
    """The links of a client of that broker."""
    app = build_app(services.broker_url, timeout_s=2)
    yield Links(app, timeout_s=1)
    app.close()
