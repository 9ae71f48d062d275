"""Links that another hand has written into the ledger: nothing harmful of them is published."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis

from callgate.adapters.broker.queue import CeleryQueue
from tests.support.links import a_link, deliver, refuse

OURS = {
    "our queue": {"queue": "callgate.call"},
    "a binding": {"queue": "_kombu.binding.celeryev"},
    "a worker's broadcasts": {"exchange": "celery.pidbox", "routing_key": ""},
    "our exchange": {"exchange": "callgate", "routing_key": "callgate.call"},
    "our queue by its key": {"exchange": "", "routing_key": "callgate.call"},
    "no place": {},
}


@pytest.mark.parametrize("where", OURS)
@pytest.mark.parametrize("form", ["task", "first of a chain", "last of a chain"])
def test_a_link_to_a_queue_of_ours_is_not_published(
    queue: CeleryQueue, valkey: Redis, where: str, form: str
) -> None:
    """Every task of a chain is checked."""
    bad, good = (
        json.loads(a_link(options=o))["link"] for o in (OURS[where], {"queue": "pipeline"})
    )
    tasks = [bad, good] if form == "first of a chain" else [good, bad]
    kinds = {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": tasks}}
    link = json.dumps({"link": bad}) if form == "task" else a_link(**kinds)

    refuse(queue, link)

    assert valkey.keys("*") == []


NO_LINKS: dict[str, dict[str, Any]] = {
    "a chord": {"subtask_type": "chord", "kwargs": {"header": [], "body": {}}},
    "a group": {"subtask_type": "group", "kwargs": {"tasks": []}},
    "a long name": {"task": "x" * 60_000},
    "a name of two lines": {"task": "a\nb"},
    "a very long link": {"args": ["x" * 2**20]},
}
HOSTILE: dict[str, dict[str, Any]] = {
    "links in links": {"options": {"queue": "pipeline", "link": [{"task": "a"}] * 500}},
    "a pickle": {"options": {"queue": "pipeline", "serializer": "pickle"}},
    "a compression": {"options": {"queue": "pipeline", "compression": "bzip2"}},
    "headers": {"options": {"queue": "pipeline", "headers": {"compression": "bz2", "shadow": "x"}}},
    "an eta": {"options": {"queue": "pipeline", "eta": "2099-01-01T00:00:00+00:00"}},
    "stamps": {"options": {"queue": "pipeline", "stamped_headers": ["a"], "a": "x"}},
}


@pytest.mark.parametrize("kind", NO_LINKS)
def test_what_is_not_a_link_is_not_published(queue: CeleryQueue, valkey: Redis, kind: str) -> None:
    refuse(queue, a_link(**NO_LINKS[kind]))

    assert valkey.keys("*") == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_only_known_options_of_a_link_are_published(
    queue: CeleryQueue, valkey: Redis, kind: str
) -> None:
    """As JSON, without delay, in a bounded message."""
    deliver(queue, a_link(**HOSTILE[kind]))

    (raw,) = valkey.lrange("pipeline", 0, -1)  # type: ignore[misc]
    sent = json.loads(raw)
    assert (sent["content-type"], sent["content-encoding"]) == ("application/json", "utf-8")
    assert not {"compression", "a"} & sent["headers"].keys()
    assert sent["headers"]["shadow"] is None
    assert sent["headers"]["eta"] is None
    assert len(raw) < 4_000


def test_a_deeply_nested_link_is_not_published(queue: CeleryQueue, valkey: Redis) -> None:
    link = a_link()
    nested = json.loads(link)["link"]
    for _ in range(150):
        chained = {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [nested]}}
        nested = {**nested, **chained}
    refuse(queue, json.dumps({"link": nested}))
    refuse(queue, a_link(args=["@"]).replace('"@"', "[" * 20_000 + "]" * 20_000))

    assert valkey.keys("*") == []
