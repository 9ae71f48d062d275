"""Who takes messages from callgate's queues, and what callgate's own broker user may not do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from callgate.adapters.broker.app import CALL_QUEUE, CALL_TASK, LOG_QUEUE

ANSWER_S = 1.0
"""How long workers have to answer a question that all of them are asked."""
REFUSED = "NOPERM"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A Celery worker that takes messages from callgate's queues."""

    name: str
    queues: tuple[str, ...]
    is_ours: bool
    """False if it knows no task of callgate's: what it takes waits for the next sweep."""


def consumers(app: Celery) -> list[Consumer]:
    """
    The Celery workers that say they consume callgate's queues; others cannot be known.

    Raises:
        Exception: Whatever the broker's client raises.
    """
    asked = app.control.inspect(timeout=ANSWER_S).active_queues() or {}
    queues = {name: tuple(_ours(found)) for name, found in asked.items()}
    names = [name for name, found in queues.items() if found]
    if not names:
        return []
    known = app.control.inspect(destination=names, timeout=ANSWER_S).registered() or {}
    return [Consumer(name, queues[name], _is_ours(known.get(name))) for name in sorted(names)]


def _is_ours(tasks: Any) -> bool:
    """Whether a worker with these tasks runs calls; one that did not answer is not accused, one without any task is."""
    return not isinstance(tasks, list) or CALL_TASK in map(str, tasks)


def _ours(found: Any) -> Iterator[str]:
    """Names of our queues in an answer, which may be of anybody's making."""
    for queue in found if isinstance(found, list) else ():
        if isinstance(queue, dict) and (name := queue.get("name")) in (CALL_QUEUE, LOG_QUEUE):
            yield str(name)


PIDBOX = "callgate.celery.pidbox"
"""Of the shape of the key under which a worker hears questions."""
WORKER_COMMANDS = (
    ("LPUSH", CALL_QUEUE, "x"),
    ("LPUSH", LOG_QUEUE, "x"),
    ("RPUSH", CALL_QUEUE, "x"),
    ("RPUSH", LOG_QUEUE, "x"),
    ("BLMPOP", "1", "2", CALL_QUEUE, LOG_QUEUE, "RIGHT", "COUNT", "1"),
    ("SADD", "_kombu.binding.callgate", "x"),
    ("SMEMBERS", "_kombu.binding.callgate"),
    ("LLEN", PIDBOX),
    ("PUBLISH", "/0.celeryev", "x"),
    ("PSUBSCRIBE", "/0.celery.pidbox"),
)
"""What a worker cannot do without; docs/security.md has the whole list. Keys come under the prefix."""
CLIENT_COMMANDS = (("LPUSH", CALL_QUEUE, "x"), ("SADD", "_kombu.binding.callgate", "x"))


def refused_command(app: Celery, commands: tuple[tuple[str, ...], ...]) -> str | None:
    """
    The first command that the broker's ACL refuses callgate's user, in the broker's words; None if all are allowed.

    Each is queued in a transaction that is then discarded: the broker checks it as if it were to run, and does not run
    it.

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
                if said := _refusal(connection, *named):
                    return f"{' '.join(named[:1])}: {said}"
            return None
        finally:
            _refusal(connection, "DISCARD")
            channel.client.connection_pool.release(connection)


def takes_items_of(app: Celery, size_bytes: int) -> bool:
    """
    Whether the broker takes a string of so many bytes.

    It is asked to echo one, because a user with few rights may do that, and may not ask for `proto-max-bulk-len`.

    Raises:
        RedisError: The broker does not answer.
    """
    with app.connection_for_write() as broker:
        client = broker.default_channel.client
        client.execute_command("PING")
        try:
            client.execute_command("PING", "x" * size_bytes)
        except (ResponseError, RedisConnectionError):
            # It says why, and closes the connection: which of the two is heard is chance.
            return False
        return True


_KEYS = (CALL_QUEUE, LOG_QUEUE, "_kombu.binding.callgate", PIDBOX)


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
