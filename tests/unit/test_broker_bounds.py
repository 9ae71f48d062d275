"""The limits on the broker's replies, on decoding, and on what is believed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import ConnectionError as Lost

from callgate.adapters.broker.bounds import (
    ITEM_MAX_BYTES,
    READ_AT_ONCE_BYTES,
    REPLY_MAX_BYTES,
    STRING_BYTES,
    BoundedBuffer,
)
from callgate.adapters.broker.control import CLOCK_MAX, BoundedClock, ReplyCollector, _Replies
from callgate.adapters.broker.guarded_transport import refusal_reason
from callgate.domain.destinations import destination
from callgate.domain.errors import InvalidLink
from worker.celery_ext.request import InspectionNode, _is_inspection

REPLIES = "reply.celery.pidbox"


class Wire:
    """The broker's end of a connection, and a buffer at the other."""

    def __init__(self) -> None:
        self.broker, self.reader = socket.socketpair()
        self.reader.settimeout(5)
        self.buffer = BoundedBuffer(self.reader, READ_AT_ONCE_BYTES, 5)

    def send(self, *parts: bytes) -> None:
        """Send from another thread: more than a socket holds."""

        def send_all() -> None:
            for part in parts:
                self.broker.sendall(part)

        threading.Thread(target=send_all).start()

    def held_bytes(self) -> int:
        """The size of the buffer."""
        return len(self.buffer._buffer.getvalue())


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A connection."""
    wire = Wire()
    yield wire
    wire.broker.close()
    wire.reader.close()


@pytest.mark.parametrize("over", [-1, 0, 1, 2, 3, READ_AT_ONCE_BYTES, 7 * 2**20 + 1])
def test_a_long_string_is_cut_and_the_next_one_is_whole(wire: Wire, over: int) -> None:
    """At and around the limit."""
    length = ITEM_MAX_BYTES + over
    wire.send(b"a" * length + b"\r\n", b"next\r\n")

    head = wire.buffer.read(length)

    assert set(head) == {ord("a")}
    assert len(head) == (length if over <= 0 else ITEM_MAX_BYTES - 2)
    assert wire.held_bytes() <= ITEM_MAX_BYTES + 2 * READ_AT_ONCE_BYTES
    assert wire.buffer.read(4) == b"next"


def test_a_burst_is_freed(wire: Wire) -> None:
    """The original frees nothing until the buffer is empty."""
    wire.send(*[b"m" * 1_000 + b"\r\n"] * 20_000)
    for _ in range(20_000):
        assert len(wire.buffer.read(1_000)) == 1_000
        wire.buffer.purge()
        assert wire.held_bytes() <= 3 * READ_AT_ONCE_BYTES


def test_a_reply_of_many_strings_is_bounded(wire: Wire) -> None:
    """For example a set that a stranger filled."""
    count = REPLY_MAX_BYTES // (ITEM_MAX_BYTES + STRING_BYTES)
    wire.send(*[b"m" * ITEM_MAX_BYTES + b"\r\n"] * count)
    for _ in range(count):
        wire.buffer.read(ITEM_MAX_BYTES)

    with pytest.raises(Lost, match="more than"):
        wire.buffer.read(ITEM_MAX_BYTES)


def test_a_reply_of_short_strings_is_bounded_too(wire: Wire) -> None:
    """Each of them is an object."""
    count = REPLY_MAX_BYTES // (1 + STRING_BYTES)
    wire.send(b"m\r\n" * count)
    for _ in range(count):
        wire.buffer.read(1)

    with pytest.raises(Lost, match="more than"):
        wire.buffer.read(1)


def test_a_long_string_that_stops_ends_the_connection(wire: Wire) -> None:
    """It cannot be read again from its start."""
    wire.send(b"a" * (ITEM_MAX_BYTES + 5 * READ_AT_ONCE_BYTES))
    wire.reader.settimeout(0.2)
    with pytest.raises(Exception, match="Timeout"):
        wire.buffer.read(ITEM_MAX_BYTES * 3)

    with pytest.raises(Lost, match="middle"):
        wire.buffer.rewind(0)


def envelope(**changes: Any) -> dict[str, Any]:
    """A message that may be decoded, with changes."""
    return {
        "body": "W10=",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {"delivery_tag": "1", "body_encoding": "base64"},
        **changes,
    }


CODECS: list[Any] = [
    *("bz2", "BZ2", "bz2_codec", "zip", "zlib_codec", "hex", "uu", "quopri", "rot13", "base64"),
    *(
        "utf-7",
        "utf-16",
        "utf_8",
        "UTF-8",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
    ),
    *("us-ascii", "latin-1", "mbcs", "undefined", "", None, 7, ["utf-8"], {}, True),
]


@pytest.mark.parametrize("codec", CODECS)
def test_only_two_encodings_are_accepted(codec: object) -> None:
    """Any other codec of Python's is refused."""
    assert "encoding" in str(refusal_reason(envelope(**{"content-encoding": codec})))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"content-type": "application/x-python-serialize"}, "content type"),
        ({"content-type": "application/data"}, "content type"),
        ({"content-type": None}, "content type"),
        ({"content-type": ["application/json"]}, "content type"),
        ({"headers": {"compression": "gzip"}}, "compressed"),
        ({"headers": {"compression": "zstd"}}, "compressed"),
        ({"headers": {"compression": ""}}, "compressed"),
        ({"headers": {"compression": {}}}, "compressed"),
        ({"headers": ["compression"]}, "no message"),
        ({"headers": "compression"}, "no message"),
        ({"body": 7}, "no message"),
        ({"body": ["W10="]}, "no message"),
        ({"properties": None}, "no message"),
        ({"properties": {"delivery_tag": 7}}, "no message"),
        ({"properties": {"delivery_tag": "1", "body_encoding": "hex"}}, "base64"),
        ({"properties": {"delivery_tag": "1", "body_encoding": ["base64"]}}, "base64"),
    ],
)
def test_the_reason_of_a_refusal_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in str(refusal_reason(envelope(**changes)))


@pytest.mark.parametrize("changes", [{}, {"content-encoding": "binary"}, {"headers": None}])
def test_a_message_of_ours_may_be_decoded(changes: dict[str, Any]) -> None:
    """In the form that Celery writes."""
    assert refusal_reason(envelope(**changes)) is None


@pytest.mark.parametrize("what", [None, 7, "text", [], [{}], {}])
def test_json_without_an_envelope_is_refused(what: object) -> None:
    assert refusal_reason(what) == "no message"


@pytest.mark.parametrize(
    "told",
    [10**4_300 - 1, CLOCK_MAX + 1, -1, True, 1e308, float("inf"), float("nan"), "9", None, [9], {}],
)
def test_a_clock_ignores_implausible_times(told: Any) -> None:
    """It advances by one, and can still be written into a message."""
    clock = BoundedClock(5)

    assert clock.adjust(told) == 6
    assert json.dumps(clock.forward()) == "7"


def test_only_replies_of_asked_workers_count() -> None:
    """A reply under another name would end the wait, and a health check would fail."""
    answers = _Replies(ReplyCollector("celery"), "ticket", frozenset({"call@host"}), None)
    message = SimpleNamespace(body=b"", headers={"ticket": "ticket"})
    bodies: list[Any] = [
        {"other@host": {"ok": "pong"}},
        {"call@host": {}, "other@host": {}},
        [1],
        "x",
    ]
    for body in bodies:
        answers.take(body, message)
        assert not answers.are_enough(1)

    answers.take({"call@host": {"ok": "pong"}}, message)

    assert answers.are_enough(1)
    assert answers.found == [{"call@host": {"ok": "pong"}}]


def test_a_clock_follows_a_later_time() -> None:
    """And no earlier one."""
    clock = BoundedClock(5)
    assert (clock.adjust(100), clock.adjust(50)) == (101, 102)
    assert clock.adjust(CLOCK_MAX) == CLOCK_MAX + 1


def inspection(**changes: Any) -> dict[str, Any]:
    """The broadcast of `inspect ping`, with changes."""
    return {
        "method": "ping",
        "arguments": {},
        "destination": None,
        "pattern": None,
        "matcher": None,
        "ticket": str(uuid4()),
        "reply_to": {"exchange": REPLIES, "routing_key": str(uuid4())},
        **changes,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ticket": None, "reply_to": None},
        {"destination": ["a@b"]},
    ],
)
def test_an_inspection_is_accepted(changes: dict[str, Any]) -> None:
    """In the forms of Celery and Flower."""
    assert _is_inspection(inspection(**changes), REPLIES)


@pytest.mark.parametrize(
    "changes",
    [
        {"reply_to": {"exchange": "", "routing_key": str(uuid4())}},
        {"reply_to": {"exchange": "callgate", "routing_key": "callgate.call"}},
        {"reply_to": {"exchange": REPLIES, "routing_key": "callgate.call"}},
        {"reply_to": {"exchange": REPLIES, "routing_key": "x" * 10_000_000}},
        {"reply_to": {"exchange": REPLIES}},
        {"reply_to": {"exchange": [REPLIES], "routing_key": {}}},
        {"reply_to": "callgate.call"},
        {"ticket": "x" * 100_000},
        {"ticket": {}},
        {"method": None},
        {"method": ["ping"]},
        {"arguments": [1]},
        {"destination": "a@b"},
        {"pattern": "(.*)*x", "matcher": "pcre"},
        {"pattern": "a@*", "matcher": "glob"},
        {"pattern": "*", "matcher": None},
        {"pattern": ["*"], "matcher": "glob"},
    ],
)
def test_a_broadcast_that_asks_for_more_is_refused(changes: dict[str, Any]) -> None:
    """A reply to any key, a ticket of any size, a pattern."""
    assert not _is_inspection(inspection(**changes), REPLIES)


@pytest.mark.parametrize("body", [None, 7, "ping", ["ping"], [], {}])
def test_a_broadcast_that_is_no_mapping_is_refused(body: object) -> None:
    """The original resubscribes over it."""
    assert not _is_inspection(body, REPLIES)


def test_a_flood_of_inspections_does_not_stop_pings() -> None:
    """Others are answered a hundred times per second."""
    collector = SimpleNamespace(clock=BoundedClock(), reply_exchange=SimpleNamespace(name=REPLIES))
    answered: list[str] = []

    class Listed(InspectionNode):
        def dispatch(self, method: str, *_: Any, **__: Any) -> None:
            answered.append(method)

    node = Listed("a@b", mailbox=collector)
    for _ in range(1_000):
        node.handle_message(inspection(method="report"))
    node.handle_message(inspection())
    node.handle_message(inspection(), SimpleNamespace(body=b"x" * 100_000, headers={}))

    assert 100 <= answered.count("report") <= 300
    assert answered.count("ping") == 1


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"queue": "pipeline"}, {"queue": "pipeline"}),
        ({"queue": "team-a:callgate.results"}, {"queue": "team-a:callgate.results"}),
        ({"queue": "Überweisung"}, {"queue": "Überweisung"}),
        ({"exchange": "e", "routing_key": "k"}, {"exchange": "e", "routing_key": "k"}),
        ({"exchange": "", "routing_key": "pipeline"}, {"queue": "pipeline"}),
        ({"queue": "pipeline", "exchange": None, "priority": 3}, {"queue": "pipeline"}),
    ],
)
def test_a_link_goes_to_a_queue_of_a_pipeline(
    options: dict[str, object], place: dict[str, str]
) -> None:
    """By its name, or by an exchange."""
    assert destination(options) == place


NAMES: list[object] = [
    *("callgate", "callgate.call", "callgate.log", "callgate.call\x06\x163", "callgate:budgets:a"),
    *("_kombu.binding.celeryev", "unacked", "unacked_index", "unacked_mutex", "celeryev.1"),
    *(
        "call@host.celery.pidbox",
        "5e3bfaec-ca57-467e-8a4d-c10c2aedfa0d.reply.celery.pidbox",
        "celery.pidbox",
        REPLIES,
    ),
    *("/0.celeryev", "celery-task-meta-1", "", " ", " a", "a\n", "a\x00", "a\x06\x160", "x" * 256),
    *(7, True, ["pipeline"], {"name": "pipeline"}, b"pipeline"),
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("form", ["queue", "exchange", "routing key", "unnamed"])
def test_a_link_to_any_other_key_is_refused(name: object, form: str) -> None:
    forms: dict[str, dict[str, object]] = {
        "queue": {"queue": name},
        "exchange": {"exchange": name, "routing_key": "k"},
        "routing key": {"exchange": "e", "routing_key": name},
        "unnamed": {"exchange": "", "routing_key": name},
    }
    if form == "exchange" and name == "":
        return
    with pytest.raises(InvalidLink):
        destination(forms[form])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exchange": "e"},
        {"routing_key": "k"},
        {"queue": "q", "exchange": "e", "routing_key": "k"},
    ],
)
def test_a_link_has_exactly_one_destination(options: dict[str, object]) -> None:
    with pytest.raises(InvalidLink):
        destination(options)
