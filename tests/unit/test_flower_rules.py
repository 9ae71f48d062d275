"""Flower's checks of events, replies and passwords."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from callgate.domain.errors import ConfigurationError
from config.settings import WorkerOptions
from worker.flower.access import (
    ALL_AT_ONCE,
    SENDERS_MAX,
    WRONG_AT_ONCE,
    WRONG_EVERY_S,
    PasswordGuard,
    sender_of,
)
from worker.flower.dashboard import check_guarded
from worker.flower.events import FIELDS, TEXT_MAX, TYPES, checked, fits

NOW = 1_800_000_000.0
HEARTBEAT = {"type": "worker-heartbeat", "hostname": "call@host-1.local", "timestamp": NOW}
RECEIVED = {"type": "task-received", "hostname": "w@h", "timestamp": NOW, "uuid": "abc.1"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def kept(event: object) -> dict[str, Any] | None:
    """What is stored of an event, in a time zone without summer time."""
    return checked(event, now=NOW, here_h=0)


@pytest.mark.parametrize("name", ["call@host", "w1@a.b:7", "pool %h/1", "gen12~x@host+1"])
def test_names_of_celery_are_stored(name: str) -> None:
    assert kept({**HEARTBEAT, "hostname": name})


@pytest.mark.parametrize(
    "character", ["<", ">", '"', "'", "&", "\n", "\x1b", "é", "\u202e", "`", ""]
)
def test_names_with_special_characters_are_refused(character: str) -> None:
    """In HTML, in an attribute, in a terminal."""
    name = f"a{character}b" if character else ""

    assert kept({**HEARTBEAT, "hostname": name}) is None
    assert kept({**RECEIVED, "uuid": name}) is None
    assert kept({**RECEIVED, "name": name}) is None


def test_a_time_is_converted_as_celery_does() -> None:
    event = {**HEARTBEAT, "utcoffset": 2, "timestamp": NOW + 2 * 3_600}

    told = kept(event)
    assert told is not None
    assert told["timestamp"] == NOW
    assert "utcoffset" not in told


@given(
    kind=st.sampled_from(sorted(TYPES)),
    fields=st.dictionaries(st.text(), st.integers() | st.text(), max_size=5),
)
def test_unknown_fields_are_dropped(kind: str, fields: dict[str, Any]) -> None:
    told = kept({**fields, **RECEIVED, "type": kind})

    known = {*FIELDS[kind.partition("-")[0]], "type", "local_received"}
    assert told is None or set(told) <= known


@given(
    kind=st.sampled_from(sorted(TYPES)),
    name=st.sampled_from(sorted({*FIELDS["worker"], *FIELDS["task"]})),
    value=ANYTHING,
)
def test_a_stored_field_is_a_short_text_or_a_number(kind: str, name: str, value: object) -> None:
    """Or a list of three numbers; and nothing raises."""
    told = kept({**RECEIVED, "type": kind, name: value}) or {}

    for field, found in told.items():
        if field == "loadavg":
            assert isinstance(found, list)
            assert all(type(load) in (int, float) for load in found)
        elif isinstance(found, str):
            assert len(found) <= 2_048
            found.encode()
            assert "<" not in found or field in (
                "args",
                "kwargs",
                "result",
                "exception",
                "traceback",
            )
        else:
            assert type(found) in (int, float)


@given(event=ANYTHING)
def test_what_is_not_an_event_is_dropped(event: object) -> None:
    assert kept(event) is None


def test_texts_are_cut_and_cleaned() -> None:
    """They may hold HTML, which Flower escapes, but nothing that a page cannot encode."""
    told = kept({**RECEIVED, "args": "<b>\ud800\u202e\x00\U0001f600" + "x" * 1_000})

    assert told is not None
    assert told["args"].startswith("<b>????x")
    assert len(told["args"]) == TEXT_MAX


@pytest.mark.parametrize(
    ("worker", "method", "reply"),
    [
        ("<b>", "stats", {}),
        (7, "stats", {}),
        ("w@h", "stats", []),
        ("w@h", "conf", "x"),
        ("w@h", "registered", [1]),
        ("w@h", "active_queues", [{}]),
        ("w@h", "active_queues", [{"name": "<b>"}]),
        ("w@h", "active", ["x"]),
        ("w@h", "stats", {"a": "x" * 10**6}),
        ("w@h", "stats", {"a": list(range(30_000))}),
        ("w@h", "stats", {"a": "\ud800"}),
    ],
)
def test_a_reply_that_no_worker_sends_is_refused(
    worker: object, method: str, reply: object
) -> None:
    """By the types that the pages rely on, and by size."""
    assert not fits(worker, method, reply)


def test_a_reply_of_a_worker_is_accepted() -> None:
    assert fits("w@h", "stats", {"total": {"a": 1}, "broker": {}})
    assert fits("w@h", "registered", ["a", "b"])
    assert fits("w@h", "active_queues", [{"name": "callgate.call"}])
    assert fits("w@h", "active", [{"id": "1"}])


def header(auth: str) -> str:
    """The header that a browser sends."""
    return "Basic " + base64.b64encode(auth.encode()).decode()


def guess(guard: PasswordGuard, sender: str, now: float, *, is_known: bool = False) -> bool:
    """Try a wrong password; False if it was not compared."""
    if guard.wait_s(sender, now, is_known=is_known):
        return False
    assert not guard.user_of(header("user:wrong"))
    guard.note_wrong(sender, now, is_known=is_known)
    return True


def test_wrong_passwords_of_one_sender_are_limited() -> None:
    """At once, and per hour; another sender is not delayed."""
    guard = PasswordGuard(["user:right"], 0.0)

    assert sum(guess(guard, "a", 0.0) for _ in range(1_000)) == WRONG_AT_ONCE
    assert guard.wait_s("b", 0.0, is_known=False) == 0
    assert guard.wait_s("a", 0.0, is_known=False) == WRONG_EVERY_S
    tried = sum(guess(guard, "a", float(second)) for second in range(1, 3_601))
    assert tried == 3_600 / WRONG_EVERY_S


def test_wrong_passwords_of_all_senders_are_limited() -> None:
    """A browser that has logged in is not affected, and the table stays small."""
    guard = PasswordGuard(["user:right"], 0.0)

    assert sum(guess(guard, f"{n}", 0.0) for n in range(10_000)) == ALL_AT_ONCE
    assert guard.wait_s("new", 0.0, is_known=False) > 0
    assert guard.wait_s("cookie", 0.0, is_known=True) == 0
    for n in range(5_000):
        guard.note_wrong(f"later {n}", 1.0, is_known=True)
    assert len(guard._senders) == SENDERS_MAX


@pytest.mark.parametrize(
    ("told", "is_right"),
    [
        (header("user:grün"), True),
        (header("user:grün").replace("Basic", "basic"), True),
        (header("user:gr"), False),
        (header("user:grün").replace("Basic", "Bearer"), False),
        (header("user:grün")[6:], False),
        ("", False),
        ("Basic", False),
        ("Basic \u00ff\u0100", False),
        ("Basic ====", False),
    ],
)
def test_no_header_raises(told: str, *, is_right: bool) -> None:
    assert (PasswordGuard(["other:x", "user:grün"], 0.0).user_of(told) == "user") is is_right


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("no address", "no address", True),
    ],
)
def test_a_sender_is_an_address_or_a_network(one: str, other: str, *, is_same: bool) -> None:
    """The owner of one IPv6 address has 2**64 of them."""
    assert (sender_of(one) == sender_of(other)) is is_same


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"flower_address": "0.0.0.0"}, "FLOWER_ADDRESS.*FLOWER_BASIC_AUTH"),  # noqa: S104 - refused
        ({"flower_address": "flower.example"}, "FLOWER_ADDRESS.*FLOWER_BASIC_AUTH"),
        ({"flower_read_only": False}, "FLOWER_READ_ONLY.*FLOWER_BASIC_AUTH"),
        ({"flower_basic_auth": SecretStr("no-colon")}, "FLOWER_BASIC_AUTH must be user:password"),
    ],
)
def test_an_unprotected_address_is_refused_at_start(options: dict[str, Any], says: str) -> None:
    """The line names the setting, and quotes no password."""
    with pytest.raises(ConfigurationError, match=says) as refused:
        check_guarded(WorkerOptions(**options))
    assert "no-colon" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flower_address": "localhost"},
        {"flower_read_only": False, "flower_basic_auth": SecretStr("a:b")},
        {"flower_address": "::", "flower_basic_auth": SecretStr("größte:пароль")},
    ],
)
def test_a_protected_address_is_accepted(options: dict[str, Any]) -> None:
    """By a loopback address, or by a password."""
    check_guarded(WorkerOptions(**options))
