"""Links that are refused at submit, because no receiver would ever get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery, Signature, chain, group
from redis import Redis

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.links import Links
from callgate.domain.errors import InvalidLink
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.support.links import receive
from tests.support.valkey import Valkey


def test_only_tasks_and_chains_of_tasks_are_links(pipeline: Celery, links: Links) -> None:
    note = pipeline.tasks["pipeline.note"]

    chained = chain(note.s(), group(note.s(), note.s()))
    empty = Signature("celery.chain", kwargs={"tasks": []}, subtask_type="chain", app=pipeline)
    for link in (group(note.s(), note.s()), chained, empty, "note"):
        with pytest.raises(InvalidLink):
            links.text(link, None)  # type: ignore[arg-type]


def pipeline_on(url: str, **options: Any) -> Celery:
    """A pipeline's app on some broker."""
    app = Celery("pipeline", broker=url, set_as_current=False)
    app.conf.broker_transport_options = options
    app.task(name="pipeline.store", shared=False)(receive)
    return app


OTHER_BROKERS: dict[str, tuple[str, dict[str, Any], str]] = {
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


@pytest.mark.parametrize("where", OTHER_BROKERS)
def test_a_link_to_another_broker_is_refused(
    links: Links, services: DevServers, where: str
) -> None:
    """It would be marked as delivered and never be received. The error names what differs, and no password."""
    parts = urlsplit(services.broker_url)
    url, options, named = OTHER_BROKERS[where]
    app = pipeline_on(url.format(port=parts.port, db=parts.path.strip("/") or 0), **options)
    store = app.tasks["pipeline.store"]

    for given in ((store.s(), None), (None, store.s()), (chain(store.s(), store.s()), None)):
        with pytest.raises(InvalidLink) as refused:
            links.text(*given)
        assert named in str(refused.value)
        assert "pass" not in str(refused.value)


def test_a_link_to_another_server_is_refused(links: Links, tmp_path: Path) -> None:
    """The servers are asked for their run ids."""
    other = Valkey(tmp_path)
    other.start()
    try:
        with pytest.raises(InvalidLink, match=f"localhost:{other.port}"):
            links.text(pipeline_on(other.url).tasks["pipeline.store"].s(), None)
    finally:
        other.kill()


@pytest.mark.parametrize("prefix", ["", "team-a:"])
def test_other_spellings_of_one_broker_are_accepted(services: DevServers, prefix: str) -> None:
    """Also an address that does not answer: it may be ours."""
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
        assert links.text(pipeline_on(url, **options).tasks["pipeline.store"].s(), None), url
    app.close()


def test_a_default_port_may_be_left_out() -> None:
    """No server is asked."""
    app = build_app("redis://broker.invalid:6379/0", timeout_s=1)
    with_ours = Links(app, timeout_s=1)

    for url in ("redis://broker.invalid", "redis://Broker.invalid/0", "rediss://broker.invalid"):
        assert with_ours.text(pipeline_on(url).tasks["pipeline.store"].s(), None)


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
def test_an_option_that_would_be_lost_is_refused(
    pipeline: Celery, links: Links, option: str
) -> None:
    """The error names it, wherever it is set."""
    store = pipeline.tasks["pipeline.store"].s()
    lost = store.clone().set(**{option: LOST[option]})

    for link in (lost, chain(store, lost), chain(store, store).set(**{option: LOST[option]})):
        with pytest.raises(InvalidLink, match=option):
            links.text(link, None)


def test_an_app_that_does_not_accept_json_is_refused(pipeline: Celery, links: Links) -> None:
    """Its workers would reject the message."""
    pipeline.conf.accept_content = ["pickle"]

    with pytest.raises(InvalidLink, match="JSON"):
        links.text(pipeline.tasks["pipeline.store"].s(), None)


@pytest.mark.parametrize("where", ["callgate.log", "unacked", "celery@host.celery.pidbox"])
def test_a_link_to_a_queue_of_ours_is_refused(pipeline: Celery, links: Links, where: str) -> None:
    """Also as the last task of a chain, and as `link_error`."""
    note = pipeline.tasks["pipeline.note"]
    bad = note.s().set(queue=where)
    for given in ((bad, None), (None, bad), (chain(note.s(), bad), None)):
        with pytest.raises(InvalidLink, match="is reserved for callgate or Celery"):
            links.text(*given)


def test_a_link_to_a_key_that_is_no_list_is_refused(
    valkey: Redis, pipeline: Celery, links: Links
) -> None:
    """A key that does not exist becomes a queue."""
    note = pipeline.tasks["pipeline.note"]
    valkey.set("taken", "by something else")
    valkey.lpush("waiting", "a message")

    with pytest.raises(InvalidLink, match="'taken'"):
        links.text(note.s().set(queue="taken"), None)
    for name in ("waiting", "new"):
        assert links.text(note.s().set(queue=name), None)
    assert not valkey.exists("new")
