"""Publish links, and read what has arrived in a queue."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any
from uuid import UUID, uuid4

from redis import Redis

from callgate.adapters.broker.queue import CeleryQueue
from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import Delivery, Published

KEY = CallKey(UUID("00000000-0000-8000-8000-000000000001"), 2)


def receive(outcome: dict[str, str], note: str = "") -> None:
    """The body of a pipeline's task."""


def messages(valkey: Redis, name: str) -> list[dict[str, Any]]:
    """The messages of a queue, oldest first, with decoded bodies."""
    found = [json.loads(raw) for raw in reversed(valkey.lrange(name, 0, -1))]  # type: ignore[arg-type]
    for message in found:
        message["body"] = json.loads(b64decode(message["body"]))
    return found


def deliver(queue: CeleryQueue, link: str, state: CallState = CallState.SUCCEEDED) -> Delivery:
    """Publish one link."""
    delivery = Delivery(submission_id=uuid4(), key=KEY, link=link, state=state)
    assert queue.publish_links([delivery]) == [Published(delivery.submission_id)]
    return delivery


def refuse(queue: CeleryQueue, link: str) -> None:
    """Assert that a link can never be published."""
    delivery = Delivery(submission_id=uuid4(), key=KEY, link=link, state=CallState.SUCCEEDED)
    (outcome,) = queue.publish_links([delivery])
    assert (outcome.submission_id, outcome.is_final) == (delivery.submission_id, True)
    assert str(outcome.why).startswith("broken: ")


def a_link(**changes: Any) -> str:
    """The stored text of a link, changed."""
    link = {
        "task": "pipeline.note",
        "args": [],
        "kwargs": {},
        "options": {"queue": "pipeline"},
        "subtask_type": None,
        "immutable": False,
        **changes,
    }
    return json.dumps({"link": link, "link_error": None})
