"""
What a message from the broker may make a worker do: look at the task that it identifies, and answer inspections.

Of a message only the ids in its arguments are trusted. Celery also obeys headers. In a forged message a time limit
would stop a call during its paid request, an expiry in the past would reject all later messages with the same id for
hours, and an ETA would fill the worker's memory. Celery also shows headers: a name (`shadow`), arguments and parents
that are not the task's. So all headers are made here, from the identity in the arguments. Callbacks in the body would
make the worker publish, or, if malformed, never acknowledge the message; the tasks switch them off
(`publishes_callbacks`). The limits of a call are in the ledger and the catalogue. One header is passed on, if it is
well formed: `traceparent`, which only says where spans appear (ADR 29).
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

from callgate.domain import trace_context

INSPECTION_COMMANDS = frozenset(
    {
        *("ping", "stats", "conf", "report", "clock", "query_task"),
        *("active", "active_queues", "registered", "reserved", "scheduled", "revoked"),
        # Flower sends this when it starts.
        "enable_events",
    }
)
"""Broadcasts a worker obeys. All others stop it, stop its tasks, or change the queues that it consumes."""
INSPECTION_MAX_BYTES = 16 * 1024
REPLY_EXPIRES_S = 10
"""How long a reply waits in the broker; as long as Celery's own reply queues live."""
REPLIES_PER_S = 100
"""Pings not counted: they are short, and health checks depend on them."""
_OID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """The task that a message identifies, in our own values."""

    task_id: str
    arguments: tuple[object, ...]
    parent_id: str | None = None

    @classmethod
    def unknown(cls) -> TaskIdentity:
        """Return the identity for a message that identifies no task of ours."""
        return cls(str(uuid4()), ())


class IdentifyingTask(Protocol):
    """A task whose request class is `UntrustedRequest`."""

    name: str

    def identify(self, args: Any, kwargs: Any) -> TaskIdentity:
        """Return what these arguments of a message identify; must not raise for any arguments."""


class UntrustedRequest(Request):  # type: ignore[misc]
    """A delivery whose headers are ours. Celery cannot revoke it: a call is cancelled in the ledger."""

    def __init__(
        self,
        message: Any,
        *,
        task: IdentifyingTask,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        args, kwargs, _ = message.payload
        ours = _headers(task.name, task.identify(args, kwargs))
        if span := trace_context.checked((message.headers or {}).get(trace_context.HEADER)):
            ours[trace_context.HEADER] = span
        super().__init__(message, task=task, headers=ours, **options)

    def revoked(self) -> bool:
        """Return False: the ledger decides what runs."""
        return False


def _headers(task: str, identity: TaskIdentity) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": task,
        "id": identity.task_id,
        "root_id": identity.parent_id or identity.task_id,
        "parent_id": identity.parent_id,
        "argsrepr": repr(identity.arguments),
        "kwargsrepr": "{}",
        "retries": 0,
        "ignore_result": True,
    }


class InspectionNode(pidbox.Node):  # type: ignore[misc]
    """
    Answers inspections, to the sender's own reply queue only.

    Celery's node sends its reply to any key that a broadcast names, or that is bound to the exchange it names, and the
    reply stays there. It matches a broadcast's regular expression against its own name and caches every compiled
    pattern. A malformed broadcast makes it resubscribe, and it misses the broadcasts meanwhile.
    """

    mailbox: Any
    _window_ends_at = 0.0
    _replies = 0

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Answer a broadcast if it is a well-formed inspection."""
        if len(getattr(message, "body", None) or "") > INSPECTION_MAX_BYTES:
            return None
        if not _is_inspection(body, self.mailbox.reply_exchange.name):
            return None
        if body["method"] != "ping" and not self._may_reply():
            return None
        return super().handle_message(body, message)

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **_: Any) -> None:
        """Publish a reply to the sender's queue, where it expires if it is not consumed."""
        queue = f"{routing_key}.{exchange}"
        headers = {"ticket": ticket, "clock": self.mailbox.clock.forward()}
        with self.mailbox.producer_pool.acquire(block=True) as producer:
            producer.publish(
                *(data, queue), exchange="", headers=headers, serializer="json", retry=False
            )
            channel = producer.channel
            with channel.conn_or_acquire() as client:
                client.expire(channel.global_keyprefix + queue, REPLY_EXPIRES_S)

    def _may_reply(self) -> bool:
        if (now := time.monotonic()) >= self._window_ends_at:
            self._window_ends_at, self._replies = now + 1, 0
        self._replies += 1
        return self._replies <= REPLIES_PER_S


def _is_inspection(body: Any, reply_exchange: str) -> bool:
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
    """Make the workers of this process ignore all broadcasts but inspections."""
    for name in set(Panel.data) - INSPECTION_COMMANDS:
        del Panel.data[name]
    app.control.mailbox.node_cls = InspectionNode
