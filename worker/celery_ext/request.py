"""
A message wakes a worker, and that is all it may do.

Of a message nothing is believed but the ids it names. Celery also obeys headers: a time limit in a forged message would
cut a call off in the middle of its paid request, an expiry in the past would have its id refused for hours in every
message after it, an ETA would fill the worker's memory. It shows others: a name (`shadow`), arguments and parents that
are not those of the task. So all headers are made here, of what the body names. Callbacks in the body
(`publishes_callbacks` of the tasks) would make the worker publish, or, if they are broken, never acknowledge the
message. What limits a call is in the ledger and the catalogue.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from celery import Celery
from celery.worker.control import Panel
from celery.worker.request import Request
from kombu import pidbox

INSPECTION_COMMANDS = frozenset(
    {
        *("ping", "stats", "conf", "report", "clock", "query_task"),
        *("active", "active_queues", "registered", "reserved", "scheduled", "revoked"),
        # Flower asks for events when it starts.
        "enable_events",
    }
)
"""Broadcasts a worker answers. The others stop it, stop its tasks, or have it consume what is not its own."""
QUESTION_BYTES_MAX = 16 * 1024
ANSWER_KEPT_S = 10
"""How long an answer waits for who asked; Celery's own queues for answers are gone after as long."""
ANSWERS_PER_S = 100
"""Beside pings, which are short and keep a worker alive."""
_OID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Named:
    """What a message names, in our words."""

    task_id: str
    arguments: tuple[object, ...]
    parent_id: str | None = None

    @classmethod
    def nothing(cls) -> Named:
        """For a message that names nothing we know."""
        return cls(str(uuid4()), ())


class Woken(Protocol):
    """A task that a `UntrustedRequest` is for."""

    name: str

    def named(self, args: Any, kwargs: Any) -> Named:
        """What these arguments of a message name; whatever they are, it raises nothing."""


class UntrustedRequest(Request):  # type: ignore[misc]
    """A delivery that only names what to look at; whoever wants a call not to run cancels it in the ledger."""

    def __init__(
        self, message: Any, *, task: Woken, headers: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        args, kwargs, _ = message.payload
        ours = _headers(task.name, task.named(args, kwargs))
        super().__init__(message, task=task, headers=ours, **options)

    def revoked(self) -> bool:
        """No: the ledger says what runs."""
        return False


def _headers(task: str, named: Named) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": task,
        "id": named.task_id,
        "root_id": named.parent_id or named.task_id,
        "parent_id": named.parent_id,
        "argsrepr": repr(named.arguments),
        "kwargsrepr": "{}",
        "retries": 0,
        "ignore_result": True,
    }


class Respondent(pidbox.Node):  # type: ignore[misc]
    """
    Answers questions, to who asked.

    Stock sends its answer to any key that a broadcast names, or that somebody bound to the exchange it names, where it
    stays; it runs a broadcast's regular expression over its own name, and keeps what it compiled of each pattern; and a
    broadcast of another shape has it close its ears and open them again, deaf meanwhile.
    """

    mailbox: Any
    _window_ends_at = 0.0
    _answered = 0

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Answer, if it is a question."""
        if len(getattr(message, "body", None) or "") > QUESTION_BYTES_MAX:
            return None
        if not _is_question(body, self.mailbox.reply_exchange.name):
            return None
        if body["method"] != "ping" and not self._may_answer():
            return None
        return super().handle_message(body, message)

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **_: Any) -> None:
        """Put an answer where it was asked for; it goes if nobody takes it."""
        queue = f"{routing_key}.{exchange}"
        headers = {"ticket": ticket, "clock": self.mailbox.clock.forward()}
        with self.mailbox.producer_pool.acquire(block=True) as producer:
            producer.publish(
                *(data, queue), exchange="", headers=headers, serializer="json", retry=False
            )
            channel = producer.channel
            with channel.conn_or_acquire() as client:
                client.expire(channel.global_keyprefix + queue, ANSWER_KEPT_S)

    def _may_answer(self) -> bool:
        if (now := time.monotonic()) >= self._window_ends_at:
            self._window_ends_at, self._answered = now + 1, 0
        self._answered += 1
        return self._answered <= ANSWERS_PER_S


def _is_question(body: Any, reply_exchange: str) -> bool:
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        return False
    reply_to, ticket = body.get("reply_to"), body.get("ticket")
    return (
        isinstance(body.get("arguments") or {}, dict)
        and isinstance(body.get("destination") or [], list)
        and body.get("pattern") is None
        and (ticket is None or _is_oid(ticket))
        and (
            reply_to is None
            or (
                isinstance(reply_to, dict)
                and reply_to.get("exchange") == reply_exchange
                and _is_oid(reply_to.get("routing_key"))
            )
        )
    )


def _is_oid(value: object) -> bool:
    return isinstance(value, str) and _OID.fullmatch(value) is not None


def allow_only_inspection_commands(app: Celery) -> None:
    """Have the workers of this process obey no command that comes through the broker."""
    for name in set(Panel.data) - INSPECTION_COMMANDS:
        del Panel.data[name]
    app.control.mailbox.node_cls = Respondent
