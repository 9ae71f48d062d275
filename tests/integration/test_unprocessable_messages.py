"""Messages that no task of ours can run, against a real worker on a real Valkey."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping

import pytest

from tests.support.celery_worker import Worker, a_worker, client_of
from tests.support.queued_messages import FOLLOW_UPS, HEADERS, envelope, with_body, with_headers
from tests.support.valkey import Valkey, until
from worker.celery_ext.consumer import RAW_MAX_BYTES

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(scope="module")
def worker(server: Valkey, pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker that must survive every message of this module."""
    folder = tmp_path_factory.mktemp("worker")
    with a_worker(server, folder, worker_pool=pool, store_unprocessable=True) as worker:
        yield worker


def without_id() -> bytes:
    """Return a message of a known task that has no id."""
    return envelope(b"[[], {}, {}]", {"task": "note", "lang": "py"})


UNPROCESSABLE: Mapping[str, tuple[bytes, str]] = {
    "undecodable body": (envelope(b"\xff not json"), "DecodeError"),
    "unknown task": (with_headers(task="nobody"), "a task that is not registered"),
    "unknown task without an id": (envelope(b"[[], {}, {}]", {"task": "nobody"}), "a task that"),
    "no task": (envelope(b"[1]", {"lang": "py"}), "no task message of a known protocol"),
    "no task, undecodable": (envelope(b"?", {"lang": "py"}), "no task message of a known"),
    "task of a wrong type": (with_headers(task=["note"]), "TypeError"),
    "old protocol, unknown task": (
        envelope(b'{"task": "nobody", "id": "x", "args": [], "kwargs": {}}', {"lang": "py"}),
        "no task message of a known protocol",
    ),
    "old protocol": (
        envelope(b'{"task": "note", "id": "x", "args": ["a"], "kwargs": {}}', {"lang": "py"}),
        "no task message of a known protocol",
    ),
    "arguments too many": (with_body([["a", 1, "b"], {}, {}]), "arguments that the task cannot"),
    "arguments too few": (with_body([[], {}, {}]), "arguments that the task cannot use"),
    "argument unknown": (with_body([["a"], {"x": 1}, {}]), "arguments that the task cannot use"),
    "argument of a wrong type": (with_body([[1], {}, {}]), "arguments that the task cannot use"),
    "no id": (without_id(), "the task id is not text"),
    "id of a wrong type": (with_headers(id=["x"]), "the task id is not text"),
    "body without parts": (with_body([]), "ValueError"),
    "body a mapping": (with_body({}), "ValueError"),
    "body a number": (with_body(1), "TypeError"),
    "body null": (with_body(None), "TypeError"),
    "args no list": (with_body([1, {}, {}]), "args is not a list"),
    "kwargs no mapping": (with_body([[], [], {}]), "kwargs is not a mapping"),
    "callbacks no mapping": (with_body([[], {}, [1]]), "callbacks are not a mapping"),
    "foreign content type": (envelope(b"x", content_type="application/x-pickle"), "content type"),
    "no content type": (envelope(b"x", content_type=None), "content type"),
    "unknown compression": (with_headers(compression="nope"), "compressed"),
    "compressed": (
        envelope(zlib.compress(b'[["a"], {}, {}]'), {**HEADERS, "compression": "zlib"}),
        "compressed",
    ),
    "bad eta": (with_headers(eta="soon"), "InvalidTaskError"),
    "bad expires": (with_headers(expires="soon"), "InvalidTaskError"),
    "bad time limit": (with_headers(timelimit="abc"), "ValueError"),
    "time limit a number": (with_headers(timelimit=5), "TypeError"),
    "bad stamps": (with_headers(stamped_headers=5), "TypeError"),
    "bad base64": (envelope(b"x").replace(b"eA==", b"!"), "DecodeError"),
    "base64 cut off": (envelope(b"x").replace(b"eA==", b"eAx"), "Error"),
    "body of half a character": (envelope(b"x").replace(b"eA==", b"\\ud800"), "UnicodeEncodeError"),
    "foreign transfer encoding": (envelope(b"x").replace(b'"base64"', b'"hex"'), "base64"),
    "transfer encoding a number": (envelope(b"x").replace(b'"base64"', b"7"), "base64"),
    "queue of half a character": (
        with_headers(task="nobody").replace(b'"routing_key": "test"', b'"routing_key": "\\ud800"'),
        "a task that is not registered",
    ),
    "nested too deeply": (b"[" * 16_000, "no message"),
    "too long": (b"[" * 200_000, "too long"),
    "odd object": (b'[{"__type__": "uuid", "__value__": 7}]', "no message"),
    "object of a known type": (
        b'[{"__type__": "decimal", "__value__": "1.5"}]',
        "no message",
    ),
    "headers no mapping": (envelope(b"x", ["task"]), "no message"),
    "no json": (b"hello", "no message"),
    "json, but no envelope": (b"[1, 2]", "no message"),
    "no properties": (b'{"body": "x"}', "no message"),
    "a number of ten thousand digits": (b'{"body": ' + b"9" * 10_000 + b"}", "no message"),
    "a uuid that is none": (b'{"__type__": "uuid", "__value__": {"hex": "x"}}', "no message"),
    "a decimal that is none": (b'{"__type__": "decimal", "__value__": "x"}', "no message"),
    "bytes that are none": (b'{"__type__": "bytes", "__value__": 5}', "no message"),
}


@pytest.mark.parametrize("kind", UNPROCESSABLE)
def test_an_unprocessable_message_is_stored_and_the_worker_survives(
    worker: Worker, valkey: Valkey, kind: str
) -> None:
    """It reaches the sink once, leaves the broker, and the next message runs."""
    item, reason = UNPROCESSABLE[kind]
    valkey.client.lpush("test", item)
    client_of(valkey).send_task("tell", ("good",))

    until(lambda: valkey.words("told") == ["good"])
    until(lambda: len(valkey.words("unprocessable_messages")) == 1)
    until(valkey.is_empty)
    assert reason in valkey.words("unprocessable_messages")[0].split("|")[1]
    assert worker.is_alive()


BROADCASTS: Mapping[str, bytes] = {
    "no json": b"hello",
    "no text": b"\xff",
    "nested too deeply": b"[" * 200_000,
    "a number of ten thousand digits": b"1" * 10_000,
    "no envelope": b"[1]",
    "nothing": b"{}",
    "base64 cut off": envelope(b"x").replace(b"eA==", b"eAx"),
    "compressed": envelope(zlib.compress(b"{}"), {**HEADERS, "compression": "zlib"}),
}


@pytest.mark.parametrize("kind", BROADCASTS)
def test_a_malformed_broadcast_ends_no_worker(worker: Worker, valkey: Valkey, kind: str) -> None:
    """It reaches all workers at once."""
    assert valkey.client.publish("/0.celery.pidbox", BROADCASTS[kind]) == 1
    client_of(valkey).send_task("tell", ("good",))

    until(lambda: valkey.words("told") == ["good"])
    until(valkey.is_empty)
    assert worker.is_alive()


def test_headers_body_and_queue_are_stored(worker: Worker, valkey: Valkey) -> None:
    valkey.client.lpush("test", with_headers(task="nobody"))
    # What the worker of the test before was asked may still arrive.
    until(lambda: any(word.startswith("test|") for word in valkey.words("unprocessable_messages")))

    (_, _, raw), *_ = (
        w.split("|") for w in valkey.words("unprocessable_messages") if w.startswith("test|")
    )
    headers, body = raw.split("\n\n")
    assert json.loads(headers)["task"] == "nobody"
    assert json.loads(body) == [["a"], {}, FOLLOW_UPS]


def test_a_stored_message_is_cut_off_at_64_kib(worker: Worker, valkey: Valkey) -> None:
    valkey.client.lpush("test", envelope(b"x" * 1_000_000, {"task": "nobody", "id": "x"}))
    until(lambda: len(valkey.words("unprocessable_messages")) == 1)

    assert len(valkey.words("unprocessable_messages")[0].split("|")[2]) == RAW_MAX_BYTES


def test_a_message_is_not_rejected_before_it_is_stored(worker: Worker, valkey: Valkey) -> None:
    """While the sink fails it is called again, and the message counts as taken."""
    valkey.client.set("outage", 1)
    valkey.client.lpush("test", with_headers(task="nobody"))
    until(lambda: len(valkey.words("sink_tries")) >= 3)

    assert valkey.words("unprocessable_messages") == []
    valkey.client.delete("outage")
    until(lambda: len(valkey.words("unprocessable_messages")) == 1)
    until(valkey.is_empty)
