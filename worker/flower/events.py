"""
The checks of an event before Flower stores it; any user of the broker may send one.

Flower's pages insert some fields of an event into HTML unescaped, sort and add others, and keep an event until its
buffer is full. So an event is dropped if a field has another type or length than expected. Fields and types that
Celery's workers do not send are dropped too. Source of the fields: docs.celeryq.dev, "Event Reference".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

NAME = re.compile(r"[\w.:@/+%$~ -]{1,200}", re.ASCII)
"""Of a worker, a task or a queue: no character has a meaning in HTML or in a terminal."""
ID = re.compile(r"[\w.:@+-]{1,155}", re.ASCII)
"""Of a task."""
VERSION = re.compile(r"[\w.:+~ -]{0,64}", re.ASCII)
TIME = re.compile(r"[\d:.TZ+-]{0,40}", re.ASCII)
UNSHOWN = re.compile("[^\t\n -~\xa1-\u200a\u2010-\u2027\u2030-\u205f\u2070-\ud7ff\uf900-\ufffd]")
"""Control characters, bidirectional overrides, lone surrogates, and characters that make Python use 4 bytes each."""
TEXT_MAX = 512
TRACEBACK_MAX = 2_048
COUNT_MAX = 2**53 - 1
"""The largest integer that JavaScript represents exactly."""
DRIFT_MAX_S = 86_400.0
REPLY_PARTS_MAX = 20_000
REPLY_TEXT_MAX = 500_000
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
HOURS_MAX = 24.0

FieldCheck = Callable[[Any], Any]


class InvalidField(Exception):
    """A field has another type or length than expected."""


def _like(pattern: re.Pattern[str]) -> FieldCheck:
    def check(value: Any) -> str:
        if not (isinstance(value, str) and pattern.fullmatch(value)):
            raise InvalidField
        return value

    return check


def _text(length: int) -> FieldCheck:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidField
        return UNSHOWN.sub("?", value[:length])

    return check


def _number(low: float, high: float) -> FieldCheck:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidField
        if not (low <= value <= high and math.isfinite(value)):
            raise InvalidField
        return value

    return check


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise InvalidField
    return value


def _loads(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) > 3:
        raise InvalidField
    return [_number(0, 1e6)(load) for load in value]


EVENT_FIELDS: Mapping[str, FieldCheck] = {
    "hostname": _like(NAME),
    "timestamp": _number(0, 2**33),
    "utcoffset": _number(-HOURS_MAX, HOURS_MAX),
    "clock": _count,
}
FIELDS: Mapping[str, Mapping[str, FieldCheck]] = {
    "worker": {
        **EVENT_FIELDS,
        "pid": _count,
        "freq": _number(0.1, 300),
        "active": _count,
        "processed": _count,
        "loadavg": _loads,
        "sw_ident": _like(VERSION),
        "sw_ver": _like(VERSION),
        "sw_sys": _like(VERSION),
    },
    "task": {
        **EVENT_FIELDS,
        "uuid": _like(ID),
        "root_id": _like(ID),
        "parent_id": _like(ID),
        "name": _like(NAME),
        "exchange": _like(re.compile(rf"({NAME.pattern})?", re.ASCII)),
        "routing_key": _like(re.compile(rf"({NAME.pattern})?", re.ASCII)),
        "args": _text(TEXT_MAX),
        "kwargs": _text(TEXT_MAX),
        "result": _text(TEXT_MAX),
        "exception": _text(TEXT_MAX),
        "traceback": _text(TRACEBACK_MAX),
        "runtime": _number(0, 1e9),
        "retries": _count,
        "eta": _like(TIME),
        "expires": _like(TIME),
    },
}
REQUIRED = {"worker": ("hostname", "timestamp"), "task": ("hostname", "timestamp", "uuid")}
TYPES = frozenset(
    [f"worker-{what}" for what in ("online", "heartbeat", "offline")]
    + [
        f"task-{what}"
        for what in (
            *("sent", "received", "started", "succeeded"),
            *("failed", "rejected", "revoked", "retried"),
        )
    ]
)


def checked(event: object, *, now: float, here_h: float) -> dict[str, Any] | None:
    """
    Return what Flower may store of an event.

    Args:
        now: Seconds since 1970.
        here_h: Hours that this machine's local time is behind UTC; Celery's `utcoffset`.

    Returns:
        Its known fields and its time of arrival; None if it is not an event of a Celery worker or client.
    """
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return None
    kind = event["type"]
    group = kind.partition("-")[0]
    if kind not in TYPES or any(event.get(name) is None for name in REQUIRED[group]):
        return None
    try:
        kept = {
            name: check(event[name])
            for name, check in FIELDS[group].items()
            if event.get(name) is not None
        }
    except InvalidField:
        return None
    kept["timestamp"] -= (kept.pop("utcoffset", here_h) - here_h) * 3_600
    if abs(kept["timestamp"] - now) > DRIFT_MAX_S:
        return None
    return {"clock": 0, **kept, "type": kind, "local_received": now}


def fits(worker: object, method: str, reply: object) -> bool:
    """Whether Flower may show this reply to an inspection; any user of the broker may have sent it."""
    if not (isinstance(worker, str) and NAME.fullmatch(worker)) or not _is_small(reply):
        return False
    if method in ("stats", "conf"):
        return isinstance(reply, dict)
    if not isinstance(reply, list):
        return False
    if method in ("registered", "revoked"):
        return all(isinstance(word, str) for word in reply)
    if method == "active_queues":
        return all(isinstance(q, dict) and _is_name(q.get("name")) for q in reply)
    return all(isinstance(task, dict) for task in reply)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_small(reply: object) -> bool:
    """Limit the size of one reply, and refuse lone surrogates, which would break the whole page."""
    waiting, parts, length = [reply], 0, 0
    while waiting:
        part = waiting.pop()
        parts += 1
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, str):
            length += len(part)
        if parts + len(waiting) > REPLY_PARTS_MAX or length > REPLY_TEXT_MAX:
            return False
        if isinstance(part, str) and LONE_SURROGATE.search(part):
            return False
    return True
