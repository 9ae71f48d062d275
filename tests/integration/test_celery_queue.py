"""`CeleryQueue` on a real broker: what is published, where it goes, and what an absent broker costs."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from celery import Celery, Signature, chain, group
from kombu import Exchange, Queue
from redis import Redis
from redis.exceptions import RedisError

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.links import Links
from callgate.adapters.broker.queue import CeleryQueue
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.delivery import Delivery, Published
from callgate.domain.errors import BrokerUnavailable, InvalidLink
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.support.valkey import Valkey

KEY = CallKey(UUID("00000000-0000-8000-8000-000000000001"), 2)


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
        app.task(name=name, shared=False)(hear)
    yield app
    app.close()


@pytest.fixture
def links(services: DevServers) -> Iterator[Links]:
    """The links of a client of that broker."""
    app = build_app(services.broker_url, timeout_s=2)
    yield Links(app, timeout_s=1)
    app.close()


def hear(outcome: dict[str, str], note: str = "") -> None:
    """Be told of an end."""


def messages(valkey: Redis, name: str) -> list[dict[str, Any]]:
    """What waits in a queue, oldest first: the envelopes, their bodies decoded."""
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
    """See that a link cannot be published, now or later."""
    delivery = Delivery(submission_id=uuid4(), key=KEY, link=link, state=CallState.SUCCEEDED)
    (outcome,) = queue.publish_links([delivery])
    assert (outcome.submission_id, outcome.is_final) == (delivery.submission_id, True)
    assert str(outcome.why).startswith("broken: ")


def test_a_call_message_holds_ids_only(queue: CeleryQueue, valkey: Redis) -> None:
    """The task id names the generation; arguments are the call and nothing more."""
    queue.publish_calls([KEY])

    (message,) = messages(valkey, "callgate.call")
    assert message["body"][0] == [str(KEY.call_id), 2]
    assert message["headers"]["task"] == "callgate.call"
    assert message["headers"]["id"] == KEY.task_id == f"{KEY.call_id}.2"
    assert message["headers"]["ignore_result"] is True


def test_a_log_task_is_the_child_of_its_call(queue: CeleryQueue, valkey: Redis) -> None:
    """Tools that show Celery's trees show which call an accounting belongs to."""
    ref = AttemptRef(KEY, uuid4())

    queue.publish_settle_tasks([ref])

    (message,) = messages(valkey, "callgate.log")
    assert message["body"][0] == [str(KEY.call_id), 2, str(ref.attempt_id)]
    assert message["headers"]["parent_id"] == message["headers"]["root_id"] == KEY.task_id


def test_a_sweep_goes_behind_the_calls(queue: CeleryQueue, valkey: Redis) -> None:
    """It crosses the call queue: what it overtakes would be published for nothing."""
    queue.publish_calls([KEY])
    queue.publish_sweep(datetime.now(UTC))

    tasks = [message["headers"]["task"] for message in messages(valkey, "callgate.call")]
    assert tasks == ["callgate.call", "callgate.sweep"]


def test_a_thousand_calls_are_few_round_trips(queue: CeleryQueue, valkey: Redis) -> None:
    """Messages go out in pipelines, in order."""
    keys = [CallKey(uuid4(), 1) for _ in range(1_200)]
    queue.publish_calls(keys[:1])
    before = int(valkey.info("stats")["total_reads_processed"])  # type: ignore[index]

    queue.publish_calls(keys[1:])

    reads = int(valkey.info("stats")["total_reads_processed"]) - before  # type: ignore[index]
    assert reads < 600
    ids = [message["headers"]["id"] for message in messages(valkey, "callgate.call")]
    assert ids == [key.task_id for key in keys]


@pytest.mark.parametrize(("task", "home"), [("store", "pipeline.store"), ("note", "pipeline")])
def test_a_link_goes_to_its_own_queue(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links, task: str, home: str
) -> None:
    """The pipeline's own routing holds, routed or by default, although our app knows none of its queues."""
    signature = pipeline.tasks[f"pipeline.{task}"].s("document 7")

    delivery = deliver(queue, links.text(signature, None) or "")

    (message,) = messages(valkey, home)
    assert message["headers"]["id"] == str(delivery.submission_id)
    assert message["body"][0] == [{"task_id": KEY.task_id, "state": "succeeded"}, "document 7"]
    assert valkey.llen("callgate.call") == 0


def test_a_queue_named_by_the_caller_wins(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """`set(queue=...)` on the signature is obeyed."""
    pipeline.conf.task_queues = [Queue("urgent", Exchange("any", type="direct"), routing_key="k")]
    signature = pipeline.tasks["pipeline.note"].s().set(queue="urgent")

    deliver(queue, links.text(signature, None) or "")

    assert len(messages(valkey, "urgent")) == 1


def test_a_chain_starts_in_the_queue_of_its_first_task(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """The first task is published; the second travels with it, its queue by name for the pipeline to find."""
    first, second = pipeline.tasks["pipeline.store"].s(), pipeline.tasks["pipeline.note"].s()

    deliver(queue, links.text(chain(first, second), None) or "")

    (message,) = messages(valkey, "pipeline.store")
    (following,) = message["body"][2]["chain"]
    assert following["task"] == "pipeline.note"
    assert following["options"]["queue"] == "pipeline"


@pytest.mark.parametrize(
    ("state", "told"), [(CallState.SUCCEEDED, "good"), (CallState.DEAD, "bad")]
)
def test_the_end_chooses_the_link(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links, state: CallState, told: str
) -> None:
    """`link` for a call that succeeded, `link_error` for every other end."""
    note = pipeline.tasks["pipeline.note"]

    deliver(queue, links.text(note.s("good"), note.s("bad")) or "", state)

    (message,) = messages(valkey, "pipeline")
    assert message["body"][0] == [{"task_id": KEY.task_id, "state": state.value}, told]


def a_link(**changes: Any) -> str:
    """The text of a link with something wrong with it."""
    link = {"task": "pipeline.note", "args": [], "kwargs": {}, "options": {"queue": "pipeline"}}
    link |= {"subtask_type": None, "immutable": False, **changes}
    return json.dumps({"link": link, "link_error": None})


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
def test_a_broken_link_does_not_hold_up_its_neighbours(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links, kind: str
) -> None:
    """A link nobody can publish is done with, whether it comes first or second; the others are published."""
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


def test_a_queue_that_takes_no_messages_holds_up_nobody(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """The broker refuses this link as it is now, with a reason that quotes nothing; the others are published."""
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
    """Another serializer is refused at submit; one that was written into the ledger all the same is not used."""
    signature = pipeline.tasks["pipeline.store"].s(document_id=7)
    with pytest.raises(InvalidLink, match=serializer):
        links.text(signature.set(serializer=serializer), None)
    stored = json.loads(links.text(signature.set(serializer="json"), None) or "")
    stored["link"]["options"]["serializer"] = serializer

    deliver(queue, json.dumps(stored))

    (message,) = messages(valkey, "pipeline.store")
    assert message["content-type"] == "application/json"
    assert message["body"][1] == {"document_id": 7}


def test_a_group_is_no_link(pipeline: Celery, links: Links) -> None:
    """Only tasks and chains of tasks can be told of an end."""
    note = pipeline.tasks["pipeline.note"]

    chained = chain(note.s(), group(note.s(), note.s()))
    empty = Signature("celery.chain", kwargs={"tasks": []}, subtask_type="chain", app=pipeline)
    for link in (group(note.s(), note.s()), chained, empty, "note"):
        with pytest.raises(InvalidLink):
            links.text(link, None)  # type: ignore[arg-type]


def elsewhere(url: str, **options: Any) -> Celery:
    """A pipeline's app on some broker."""
    app = Celery("pipeline", broker=url, set_as_current=False)
    app.conf.broker_transport_options = options
    app.task(name="pipeline.store", shared=False)(hear)
    return app


ELSEWHERE: dict[str, tuple[str, dict[str, Any], str]] = {
    "another database": ("redis://:pass%40word@127.0.0.1:{port}/7", {}, "database '7'"),
    "another prefix": (
        "redis://127.0.0.1:{port}/{db}",
        {"global_keyprefix": "team-a:"},
        "prefix 'team-a:'",
    ),
    "another kind of broker": ("amqp://u:pass%40word@127.0.0.1:{port}//", {}, "transport 'amqp'"),
    "no broker at all": ("memory://", {}, "transport 'memory'"),
    "a transport that is not there": ("confluentkafka://u:pass%40word@host", {}, "cannot be used"),
    "a socket's other database": (
        "redis+socket:///tmp/nothing.sock?virtual_host=9",
        {},
        "database '9'",
    ),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_link_to_elsewhere_is_refused(links: Links, services: DevServers, where: str) -> None:
    """It would be marked delivered, into a list nobody reads; what differs is named, a password is not."""
    parts = urlsplit(services.broker_url)
    url, options, named = ELSEWHERE[where]
    app = elsewhere(url.format(port=parts.port, db=parts.path.strip("/") or 0), **options)
    store = app.tasks["pipeline.store"]

    for given in ((store.s(), None), (None, store.s()), (chain(store.s(), store.s()), None)):
        with pytest.raises(InvalidLink) as refused:
            links.text(*given)
        assert named in str(refused.value)
        assert "pass" not in str(refused.value)


def test_a_link_to_another_server_is_refused(links: Links, tmp_path: Path) -> None:
    """The servers are asked who they are."""
    other = Valkey(tmp_path)
    other.start()
    try:
        with pytest.raises(InvalidLink, match=f"localhost:{other.port}"):
            links.text(elsewhere(other.url).tasks["pipeline.store"].s(), None)
    finally:
        other.kill()


@pytest.mark.parametrize("prefix", ["", "team-a:"])
def test_one_broker_may_be_spelt_in_many_ways(services: DevServers, prefix: str) -> None:
    """None is refused: a default left out, a name, an address that is ours by another way, one that does not answer."""
    parts = urlsplit(services.broker_url)
    assert (parts.hostname, parts.path) == ("127.0.0.1", "/0")
    app = build_app(services.broker_url, timeout_s=2, prefix=prefix)
    links, port = Links(app, timeout_s=1), parts.port
    for url in (
        f"redis://127.0.0.1:{port}",
        f"redis://localhost:{port}/",
        f"redis://LOCALHOST:{port}/0",
        f"redis://user:password@127.0.0.1:{port}/0",
        f"redis://127.0.0.2:{port}/0",
        f"redis://127.0.0.1:{free_port()}/0",
        f"redis://no-such-host.invalid:{port}/0",
        f"redis://127.0.0.1:{port};redis://other.invalid:{port}",
        "redis+socket:///nowhere/valkey.sock",
    ):
        options = {"global_keyprefix": prefix} if prefix else {}
        assert links.text(elsewhere(url, **options).tasks["pipeline.store"].s(), None), url
    app.close()


def test_a_default_port_may_be_left_out() -> None:
    """Nobody has to be asked."""
    app = build_app("redis://broker.invalid:6379/0", timeout_s=1)
    with_ours = Links(app, timeout_s=1)

    for url in ("redis://broker.invalid", "redis://Broker.invalid/0", "rediss://broker.invalid"):
        assert with_ours.text(elsewhere(url).tasks["pipeline.store"].s(), None)


LOST: dict[str, Any] = {
    "compression": "gzip",
    "task_id": "mine",
    "countdown": 5,
    "eta": "2026-12-01T00:00:00+00:00",
    "headers": {"a": "b"},
    "link": [{"task": "a"}],
    "link_error": [{"task": "a"}],
    "time_limit": 5,
    "soft_time_limit": 5,
    "retry": True,
    "retry_policy": {"max_retries": 3},
    "reply_to": "a queue",
    "root_id": "a",
    "parent_id": "a",
    "group_id": "a",
    "chord": {"task": "a"},
    "stamped_headers": ["a"],
    "delivery_mode": 1,
    "add_to_parent": True,
    "connection": "x",
    "producer": "x",
    "a header of their own": "x",
}


@pytest.mark.parametrize("option", LOST)
def test_an_option_that_cannot_be_kept_is_refused(
    pipeline: Celery, links: Links, option: str
) -> None:
    """By its name, wherever it is set: better refused than silently dropped."""
    store = pipeline.tasks["pipeline.store"].s()
    lost = store.clone().set(**{option: LOST[option]})

    for link in (lost, chain(store, lost), chain(store, store).set(**{option: LOST[option]})):
        with pytest.raises(InvalidLink, match=option):
            links.text(link, None)


def test_an_option_that_is_kept_arrives(
    queue: CeleryQueue, valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """What a message can carry, it carries; an option that is set to nothing is none."""
    store = pipeline.tasks["pipeline.store"].s()
    store.set(expires=600, priority=3, shadow="store for acme", ignore_result=True)

    deliver(queue, links.text(store.set(countdown=None, link=[], headers={}), None) or "")

    (message,) = messages(valkey, "pipeline.store")
    headers = message["headers"]
    assert (headers["shadow"], headers["ignore_result"]) == ("store for acme", True)
    assert datetime.fromisoformat(headers["expires"]) > datetime.now(UTC)
    assert message["properties"]["priority"] == 3


def test_an_app_that_reads_no_json_has_no_link(pipeline: Celery, links: Links) -> None:
    """Its workers would refuse the message."""
    pipeline.conf.accept_content = ["pickle"]

    with pytest.raises(InvalidLink, match="JSON"):
        links.text(pipeline.tasks["pipeline.store"].s(), None)


def test_an_absent_broker_costs_its_bound() -> None:
    """Nobody listens: a typed error, within seconds."""
    app = build_app(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1)
    began = time.monotonic()

    with pytest.raises(BrokerUnavailable):
        CeleryQueue(app, timeout_s=1).publish_calls([KEY])

    assert time.monotonic() - began < 8
    app.close()


def test_a_stopped_broker_costs_its_bound(services: DevServers, queue: CeleryQueue) -> None:
    """A broker that breaks no socket and answers nothing is as good as none; afterwards publishing works again."""
    queue.publish_calls([KEY])
    services.valkey.suspend()
    try:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            queue.publish_calls([KEY])
        assert time.monotonic() - began < 20
    finally:
        services.valkey.resume()

    queue.publish_calls([KEY])


OURS = {
    "our queue": {"queue": "callgate.call"},
    "a binding": {"queue": "_kombu.binding.celeryev"},
    "a worker's ears": {"exchange": "celery.pidbox", "routing_key": ""},
    "our exchange": {"exchange": "callgate", "routing_key": "callgate.call"},
    "our queue by its key": {"exchange": "", "routing_key": "callgate.call"},
    "no place": {},
}


@pytest.mark.parametrize("where", OURS)
@pytest.mark.parametrize("form", ["task", "first of a chain", "last of a chain"])
def test_a_link_to_what_is_no_queue_of_a_pipeline_is_not_sent(
    queue: CeleryQueue, valkey: Redis, where: str, form: str
) -> None:
    """Written into the ledger by another hand than ours; every task of a chain counts."""
    bad, good = (
        json.loads(a_link(options=o))["link"] for o in (OURS[where], {"queue": "pipeline"})
    )
    tasks = [bad, good] if form == "first of a chain" else [good, bad]
    kinds = {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": tasks}}
    link = json.dumps({"link": bad}) if form == "task" else a_link(**kinds)

    refuse(queue, link)

    assert valkey.keys("*") == []


@pytest.mark.parametrize("where", ["callgate.log", "unacked", "celery@host.celery.pidbox"])
def test_a_link_to_what_is_no_queue_of_a_pipeline_is_refused_at_submit(
    pipeline: Celery, links: Links, where: str
) -> None:
    """Also as the last of a chain, and as the other link."""
    note = pipeline.tasks["pipeline.note"]
    bad = note.s().set(queue=where)
    for given in ((bad, None), (None, bad), (chain(note.s(), bad), None)):
        with pytest.raises(InvalidLink, match="no queue of a pipeline"):
            links.text(*given)


def test_a_link_to_another_key_is_refused_at_submit(
    valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """What is there is looked at once per name; what is not there becomes a queue."""
    note = pipeline.tasks["pipeline.note"]
    valkey.set("taken", "by something else")
    valkey.lpush("waiting", "a message")

    with pytest.raises(InvalidLink, match="'taken'"):
        links.text(note.s().set(queue="taken"), None)
    for name in ("waiting", "new"):
        assert links.text(note.s().set(queue=name), None)
    assert not valkey.exists("new")


NO_LINKS = {
    "a chord": {"subtask_type": "chord", "kwargs": {"header": [], "body": {}}},
    "a group": {"subtask_type": "group", "kwargs": {"tasks": []}},
    "a long name": {"task": "x" * 60_000},
    "a name of two lines": {"task": "a\nb"},
    "a very long link": {"args": ["x" * 2**20]},
}
HOSTILE = {
    "links in links": {"options": {"queue": "pipeline", "link": [{"task": "a"}] * 500}},
    "a pickle": {"options": {"queue": "pipeline", "serializer": "pickle"}},
    "a compression": {"options": {"queue": "pipeline", "compression": "bzip2"}},
    "headers": {"options": {"queue": "pipeline", "headers": {"compression": "bz2", "shadow": "x"}}},
    "an eta": {"options": {"queue": "pipeline", "eta": "2099-01-01T00:00:00+00:00"}},
    "stamps": {"options": {"queue": "pipeline", "stamped_headers": ["a"], "a": "x"}},
}


@pytest.mark.parametrize("kind", NO_LINKS)
def test_a_hostile_link_that_is_none_is_not_sent(
    queue: CeleryQueue, valkey: Redis, kind: str
) -> None:
    """It is given up, and says so."""
    refuse(queue, a_link(**NO_LINKS[kind]))

    assert valkey.keys("*") == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_of_a_hostile_link_only_what_we_know_is_sent(
    queue: CeleryQueue, valkey: Redis, kind: str
) -> None:
    """As JSON, at once, in a bounded message."""
    deliver(queue, a_link(**HOSTILE[kind]))

    (raw,) = valkey.lrange("pipeline", 0, -1)  # type: ignore[misc]
    sent = json.loads(raw)
    assert (sent["content-type"], sent["content-encoding"]) == ("application/json", "utf-8")
    assert not {"compression", "a"} & sent["headers"].keys()
    assert sent["headers"]["shadow"] is None
    assert sent["headers"]["eta"] is None
    assert len(raw) < 4_000


def test_a_link_that_is_nested_deeply_holds_up_nobody(queue: CeleryQueue, valkey: Redis) -> None:
    """A thousand chains in one another."""
    link = a_link()
    nested = json.loads(link)["link"]
    for _ in range(150):
        chained = {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [nested]}}
        nested = {**nested, **chained}
    refuse(queue, json.dumps({"link": nested}))
    refuse(queue, a_link(args=["@"]).replace('"@"', "[" * 20_000 + "]" * 20_000))

    assert valkey.keys("*") == []


def test_the_embedded_broker_refuses_what_no_message_of_ours_is(valkey: Redis) -> None:
    """A megabyte may be, one more may not; a reader then has nothing to read past."""
    valkey.lpush("long", "x" * 2**20)
    with pytest.raises(RedisError):
        valkey.lpush("long", "x" * (2**20 + 1))
    assert valkey.llen("long") == 1
