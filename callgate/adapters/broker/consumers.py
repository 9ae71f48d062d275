"""Which workers consume callgate's queues, and which commands the broker refuses to callgate's user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery import Celery
from celery.exceptions import DuplicateNodenameWarning
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from callgate.adapters.broker.app import CALL_QUEUE, CALL_TASK, EXPRESS_QUEUE, LOG_QUEUE

ANSWER_S = 1.0
"""How long workers have to answer an inspection of all workers."""
REFUSED = "NOPERM"
OUR_QUEUES = (CALL_QUEUE, EXPRESS_QUEUE, LOG_QUEUE)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A Celery worker that consumes callgate's queues."""

    name: str
    queues: tuple[str, ...]
    is_ours: bool
    """False if it does not know callgate's tasks: the calls whose messages it takes wait for the next sweep."""


def consumers(app: Celery) -> list[Consumer]:
    """
    Return the Celery workers that report that they consume callgate's queues; others cannot be found.

    Raises:
        Exception: Any error of the broker's client.
    """
    # One of the app's pool may have ended with a broker that was restarted since, and an inspection is not repeated.
    with app.connection_for_write() as broker:
        ask = partial(app.control.inspect, timeout=ANSWER_S, connection=broker)
        with warnings.catch_warnings():
            # `callgate doctor` says in its own words that fewer answer than are alive.
            warnings.simplefilter("ignore", DuplicateNodenameWarning)
            answered = ask().active_queues() or {}
            queues = {name: tuple(_our_queues(found)) for name, found in answered.items()}
            names = [name for name, found in queues.items() if found]
            known = (ask(names).registered() or {}) if names else {}
    return [Consumer(name, queues[name], _is_ours(known.get(name))) for name in sorted(names)]


def _is_ours(tasks: Any) -> bool:
    """Whether a worker with these tasks runs calls; True for a worker that did not answer."""
    return not isinstance(tasks, list) or CALL_TASK in map(str, tasks)


def _our_queues(found: Any) -> Iterator[str]:
    """Yield the names of our queues in a reply; any user of the broker may have made it."""
    for queue in found if isinstance(found, list) else ():
        if isinstance(queue, dict) and (name := queue.get("name")) in OUR_QUEUES:
            yield str(name)


PIDBOX = "callgate.celery.pidbox"
"""A key of the form under which a worker receives inspections."""
WORKER_COMMANDS = (
    ("LPUSH", CALL_QUEUE, "x"),
    ("LPUSH", EXPRESS_QUEUE, "x"),
    ("LPUSH", LOG_QUEUE, "x"),
    ("RPUSH", CALL_QUEUE, "x"),
    ("RPUSH", LOG_QUEUE, "x"),
    ("BLMPOP", "1", "3", EXPRESS_QUEUE, CALL_QUEUE, LOG_QUEUE, "RIGHT", "COUNT", "1"),
    ("SADD", "_kombu.binding.callgate", "x"),
    ("SMEMBERS", "_kombu.binding.callgate"),
    ("LLEN", PIDBOX),
    ("PUBLISH", "/0.celeryev", "x"),
    ("PSUBSCRIBE", "/0.celery.pidbox"),
)
"""The commands a worker needs; docs/security.md has the whole list. Keys are used with the prefix."""
CLIENT_COMMANDS = (
    ("LPUSH", CALL_QUEUE, "x"),
    ("LPUSH", EXPRESS_QUEUE, "x"),
    ("SADD", "_kombu.binding.callgate", "x"),
)


def refused_command(app: Celery, commands: tuple[tuple[str, ...], ...]) -> str | None:
    """
    Return the first command that the broker's ACL refuses, with the broker's reason; None if all are allowed.

    The commands are queued in a transaction that is then discarded: the broker checks them and does not run them.

    Raises:
        RedisError: The broker does not answer.
    """
    with app.connection_for_write() as broker:
        channel: Any = broker.default_channel
        prefix = str(channel.global_keyprefix or "")
        connection = channel.client.connection_pool.get_connection()
        try:
            for command in (("MULTI",), *commands):
                named = [prefix + part if part in _KEYS else part for part in command]
                if refusal := _refusal(connection, *named):
                    return f"{' '.join(named[:1])}: {refusal}"
            return None
        finally:
            _refusal(connection, "DISCARD")
            channel.client.connection_pool.release(connection)


def takes_items_of(app: Celery, size_bytes: int) -> bool:
    """
    Whether the broker accepts a string of this length.

    It is asked to echo one: a user with few rights may do that, but may not read `proto-max-bulk-len`.

    Raises:
        RedisError: The broker does not answer.
    """
    with app.connection_for_write() as broker:
        client = broker.default_channel.client
        client.execute_command("PING")
        try:
            client.execute_command("PING", "x" * size_bytes)
        except (ResponseError, RedisConnectionError):
            # It sends an error and closes the connection; either may arrive first.
            return False
        return True


_KEYS = (CALL_QUEUE, EXPRESS_QUEUE, LOG_QUEUE, "_kombu.binding.callgate", PIDBOX)


def _refusal(connection: Any, *command: str) -> str | None:
    connection.send_command(*command)
    try:
        connection.read_response()
    except RedisError as exc:
        if REFUSED in str(exc) or type(exc).__name__ == "NoPermissionError":
            return str(exc)
        if isinstance(exc, ConnectionError | TimeoutError):
            raise
    return None
