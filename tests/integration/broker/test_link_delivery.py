"""Links on their way to a pipeline: where they go, and what one that cannot go does to others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from celery import Celery, chain
from kombu import Exchange, Queue
from redis import Redis

from callgate.adapters.broker.links import Links
from callgate.adapters.broker.queue import CeleryQueue
from callgate.domain.calls import CallState
from callgate.domain.delivery import Delivery, Published
from callgate.domain.errors import InvalidLink
from tests.support.links import KEY, a_link, deliver, messages


@pytest.mark.parametrize(("task", "home"), [("store", "pipeline.store"), ("note", "pipeline")])
def test_a_link_goes_to_its_own_queue(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links, task: str, home: str
) -> None:
    """The pipeline's own routing applies, although our app knows none of its queues."""
    signature = pipeline.tasks[f"pipeline.{task}"].s("document 7")

    delivery = deliver(queue, links.text(signature, None) or "")

    (message,) = messages(valkey, home)
    assert message["headers"]["id"] == str(delivery.submission_id)
    assert message["body"][0] == [{"task_id": KEY.task_id, "state": "succeeded"}, "document 7"]
    assert valkey.llen("callgate.call") == 0


def test_a_queue_set_on_the_signature_is_used(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    pipeline.conf.task_queues = [Queue("urgent", Exchange("any", type="direct"), routing_key="k")]
    signature = pipeline.tasks["pipeline.note"].s().set(queue="urgent")

    deliver(queue, links.text(signature, None) or "")

    assert len(messages(valkey, "urgent")) == 1


def test_a_chain_starts_in_the_queue_of_its_first_task(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """The second task travels in the message of the first, with the name of its queue."""
    first, second = pipeline.tasks["pipeline.store"].s(), pipeline.tasks["pipeline.note"].s()

    deliver(queue, links.text(chain(first, second), None) or "")

    (message,) = messages(valkey, "pipeline.store")
    (following,) = message["body"][2]["chain"]
    assert following["task"] == "pipeline.note"
    assert following["options"]["queue"] == "pipeline"


@pytest.mark.parametrize(
    ("state", "told"), [(CallState.SUCCEEDED, "good"), (CallState.DEAD, "bad")]
)
def test_success_publishes_link_and_any_other_end_link_error(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links, state: CallState, told: str
) -> None:
    note = pipeline.tasks["pipeline.note"]

    deliver(queue, links.text(note.s("good"), note.s("bad")) or "", state)

    (message,) = messages(valkey, "pipeline")
    assert message["body"][0] == [{"task_id": KEY.task_id, "state": state.value}, told]


BROKEN_LINKS = {
    "no JSON": "{",
    "too deep": "[" * 100_000,
    "no mapping": "[]",
    "null": "null",
    "no link": "{}",
    "a text": '{"link": "pipeline.note"}',
    "task a number": a_link(task=7),
    "no task": '{"link": {}}',
    "args a number": a_link(args=7),
    "options a list": a_link(options=[]),
    "queue a number": a_link(options={"queue": 7}),
    "queue a mapping": a_link(options={"queue": {}}),
    "unknown serializer": a_link(options={"queue": "pipeline", "serializer": "nope"}),
    "unknown compression": a_link(options={"queue": "pipeline", "compression": "nope"}),
    "bad expiry": a_link(options={"queue": "pipeline", "expires": "never"}),
    "bad priority": a_link(options={"queue": "pipeline", "priority": "high"}),
    "somebody's connection": a_link(options={"queue": "pipeline", "connection": "x"}),
    "somebody's producer": a_link(options={"queue": "pipeline", "producer": "x"}),
    "empty chain": a_link(task="celery.chain", subtask_type="chain", kwargs={"tasks": []}),
    "unknown kind": a_link(subtask_type="nope"),
}


@pytest.mark.parametrize("kind", BROKEN_LINKS)
def test_a_broken_link_does_not_delay_others(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links, kind: str
) -> None:
    """It is final, first in a batch or later; the others are published."""
    good = links.text(pipeline.tasks["pipeline.note"].s("good"), None) or ""
    deliveries = [
        Delivery(submission_id=uuid4(), key=KEY, link=link, state=CallState.SUCCEEDED)
        for link in (BROKEN_LINKS[kind], good, BROKEN_LINKS[kind], good)
    ]

    done = queue.publish_links(deliveries)

    assert [p.submission_id for p in done] == [d.submission_id for d in deliveries]
    assert [p.why for p in done[1::2]] == [None, None]
    assert all(p.is_final for p in done if p.why)
    told = [m["body"][0] for m in messages(valkey, "pipeline")]
    assert len([args for args in told if args[-1] == "good"]) == 2


def test_a_link_that_the_broker_refuses_does_not_delay_others(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """The refusal is not final, and its reason quotes nothing of the link."""
    valkey.set("taken", "by something else")
    good = links.text(pipeline.tasks["pipeline.note"].s("good"), None) or ""
    refused, fine = [
        Delivery(submission_id=uuid4(), key=KEY, link=link, state=CallState.SUCCEEDED)
        for link in (a_link(options={"queue": "taken"}), good)
    ]

    why = "refused by the broker: ResponseError"
    assert queue.publish_links([refused, fine]) == [
        Published(refused.submission_id, why),
        Published(fine.submission_id),
    ]
    assert queue.publish_links([refused]) == [Published(refused.submission_id, why)]
    assert len(messages(valkey, "pipeline")) == 1


@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_a_link_travels_as_json(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links, serializer: str
) -> None:
    """Another serializer is refused at submit. If the ledger has one all the same, it is not used."""
    signature = pipeline.tasks["pipeline.store"].s(document_id=7)
    with pytest.raises(InvalidLink, match=serializer):
        links.text(signature.set(serializer=serializer), None)
    stored = json.loads(links.text(signature.set(serializer="json"), None) or "")
    stored["link"]["options"]["serializer"] = serializer

    deliver(queue, json.dumps(stored))

    (message,) = messages(valkey, "pipeline.store")
    assert message["content-type"] == "application/json"
    assert message["body"][1] == {"document_id": 7}


def test_options_that_a_message_can_carry_arrive(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """An option with an empty value counts as not set."""
    store = pipeline.tasks["pipeline.store"].s()
    store.set(expires=600, priority=3, shadow="store for acme", ignore_result=True)

    deliver(queue, links.text(store.set(countdown=None, link=[], headers={}), None) or "")

    (message,) = messages(valkey, "pipeline.store")
    headers = message["headers"]
    assert (headers["shadow"], headers["ignore_result"]) == ("store for acme", True)
    assert datetime.fromisoformat(headers["expires"]) > datetime.now(UTC)
    assert message["properties"]["priority"] == 3
