"""
The private names of Celery, kombu and redis-py that callgate leans on: one table for the check and for the README.

    python -m tests.support.celery_internals        prints the table as worker/celery_ext/README.md shows it
"""

# ruff: noqa: E501 - one row of the table is one line
from __future__ import annotations

import importlib
import inspect
from typing import Any, NamedTuple

OUTSIDE = ("callgate.adapters.broker.guarded_transport", "callgate.adapters.broker.bounds")
"""Modules outside `worker/celery_ext` that lean on internals: they run in clients as well."""


class Internal(NamedTuple):
    """One private name, and the signature it must have."""

    path: str
    """`module:Class.member` or `module:function`."""
    parameters: str | None
    """Names of the parameters; None for what is not called."""
    used_for: str

    def found(self) -> str | None:
        """
        The parameters that the installed version has.

        Raises:
            AttributeError, ImportError: The name is gone.
        """
        owner, member = _owner_of(self.path)
        value = inspect.getattr_static(owner, member) if _is_static(owner, member) else None
        if self.parameters is None:
            return None
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        function: Any = value
        return ", ".join(inspect.signature(function).parameters)


def _owner_of(path: str) -> tuple[Any, str]:
    module, _, name = path.partition(":")
    owner, _, member = name.rpartition(".")
    found = importlib.import_module(module)
    return (getattr(found, owner) if owner else found), member


def _is_static(owner: Any, member: str) -> bool:
    """False for an attribute that only instances have; AttributeError if nothing has it."""
    if hasattr(owner, member):
        return True
    for base in getattr(owner, "__mro__", ()):
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):
            continue
        if f"self.{member} =" in source or f"self.{member}: " in source:
            return False
    raise AttributeError(f"{owner!r} has no {member}")


POOL = "celery.concurrency.base:BasePool"
CONSUMER = "celery.worker.consumer.consumer:Consumer"
REQUEST = "celery.worker.request:Request"
STATE = "celery.worker.state"
HUB = "kombu.asynchronous.hub:Hub"
QOS = "kombu.transport.virtual.base:QoS"
REDIS = "kombu.transport.redis:Channel"
BUFFER = "redis._parsers.socket:SocketBuffer"

CELERY_EXT = (
    Internal("celery.app.trace:trace_task_ret", "name, uuid, request, body, content_type, content_encoding, loads, app, extra_request", "the tracer that Celery gives a pool"),
    Internal("celery.app.trace:fast_trace_task", "task, uuid, request, body, content_type, content_encoding, loads, _loc, hostname, _", "the tracer of a worker that Celery has optimised"),
    Internal("celery.app.base:Celery.use_fast_trace_task", None, "which of the two tracers is in use"),
    Internal("celery.concurrency.base:apply_target", "target, args, kwargs, callback, accept_callback, pid, getpid, propagate, monotonic, _", "runs tasks that are functions, in task threads"),
    Internal(f"{POOL}.__init__", "self, limit, putlocks, forking_enable, callbacks_propagate, app, options", "extended"),
    Internal(f"{POOL}.body_can_be_buffer", None, "overridden: the body may be a buffer"),
    Internal(f"{POOL}.signal_safe", None, "overridden: signal handlers must not call the pool"),
    Internal(f"{POOL}.on_start", "self", "overridden: starts threads, enters resources"),
    Internal(f"{POOL}.register_with_event_loop", "self, loop", "overridden: attaches the inbox to the hub"),
    Internal(f"{POOL}.on_apply", "self, args, kwargs", "overridden: accepts a task"),
    Internal(f"{POOL}.apply_async", "self, target, args, kwargs, options", "runs retries of background work in task threads"),
    Internal(f"{POOL}.flush", "self", "overridden: drops tasks after a lost connection"),
    Internal(f"{POOL}.num_processes", None, "overridden: Celery derives the prefetch count from it"),
    Internal(f"{POOL}.terminate_job", "self, pid, signal", "overridden: the job's own `terminate` does it"),
    Internal(f"{POOL}._get_info", "self", "extended: statistics for `inspect stats`"),
    Internal(f"{POOL}.on_stop", "self", "overridden: drains"),
    Internal(f"{POOL}.on_terminate", "self", "overridden: stops at once"),
    Internal(f"{POOL}._state", None, "whether the pool runs; `RUN` and `TERMINATE` are its values"),
    Internal(f"{POOL}.RUN", None, "a value of `_state`"),
    Internal(f"{POOL}.TERMINATE", None, "a value of `_state`"),
    Internal(f"{STATE}:should_stop", None, "set when the event loop has died: ends the worker"),
    Internal(f"{STATE}:should_terminate", None, "whether a shutdown is cold"),
    Internal(f"{STATE}:task_reserved", "request, add_request, add_reserved_request, discard_scheduled_request", "shows a message of a batch in `inspect`"),
    Internal(f"{STATE}:task_ready", "request, successful, remove_request, discard_active_request, discard_reserved_request, discard_scheduled_request", "removes it there"),
    Internal("celery.worker.request:create_request_cls", "base, task, pool, hostname, eventer, ref, revoked_tasks, task_ready, trace, app", "the request class of a batch"),
    Internal(f"{REQUEST}.__init__", "self, message, on_ack, hostname, eventer, app, connection_errors, request_dict, task, on_reject, body, headers, decoded, utc, maybe_make_aware, maybe_iso8601, opts", "extended: our headers replace the sender's"),
    Internal(f"{REQUEST}.revoked", "self", "overridden: the ledger decides"),
    Internal(f"{REQUEST}.on_accepted", "self, pid, time_accepted", "a message of a batch starts"),
    Internal(f"{REQUEST}.on_success", "self, failed__retval__runtime, kwargs", "a message of a batch has ended: ack, event"),
    Internal(f"{REQUEST}.send_event", "self, type, fields", "task-received, for a message of a batch"),
    Internal(f"{REQUEST}.request_dict", None, "the headers of a message of a batch"),
    Internal("celery.worker.control:Panel.data", None, "the table of broadcasts that a worker obeys"),
    Internal("celery.worker.consumer.tasks:Tasks", None, "its step stops after the buffers are closed"),
    Internal("celery.bootsteps:StartStopStep.stop", "self, parent", "overridden: closes the buffers"),
    Internal(f"{CONSUMER}.create_task_handler", "self, promise", "extended: diverts messages that raise"),
    Internal(f"{CONSUMER}.on_decode_error", "self, message, exc", "overridden: diverts"),
    Internal(f"{CONSUMER}.on_unknown_task", "self, body, message, exc", "overridden: diverts"),
    Internal(f"{CONSUMER}.on_invalid_task", "self, body, message, exc", "overridden: diverts"),
    Internal(f"{CONSUMER}.on_send_event_buffered", "self", "overridden: schedules a flush of events"),
    Internal(f"{CONSUMER}._flush_events", "self", "sends the buffered events"),
    Internal(f"{CONSUMER}.shutdown", "self", "extended: sends the last events"),
    Internal(f"{CONSUMER}.call_soon", "self, p, args, kwargs", "returns to the hub thread"),
    Internal(f"{CONSUMER}.strategies", None, "finds the batches of a connection"),
    Internal(f"{CONSUMER}.timer", None, "delays retries, batches and event flushes"),
    Internal(f"{CONSUMER}.hub", None, "whether there is an event loop"),
    Internal(f"{CONSUMER}.pool", None, "runs background work"),
    Internal(f"{CONSUMER}.blueprint", None, "tells a shutdown from a lost connection"),
    Internal("celery.events.dispatcher:EventDispatcher.buffer_limit", None, "events of one message"),
    Internal(f"{HUB}.add_reader", "self, fds, callback, args", "wakes the hub for the inbox"),
    Internal(f"{HUB}.call_repeatedly", "self, delay, callback, args", "ticks during a drain"),
    Internal(f"{HUB}.run_once", "self", "runs the hub during a drain"),
    Internal("kombu.serialization:prepare_accept_content", "content_types, name_to_type", "decodes a body that Celery left encoded"),
    Internal("kombu.pidbox:Node.handle_message", "self, body, message", "extended: inspections only"),
    Internal("kombu.pidbox:Node.reply", "self, data, exchange, routing_key, ticket, kwargs", "overridden: replies expire"),
    Internal("kombu.pidbox:Mailbox.node_cls", None, "the class of the control node"),
    Internal("kombu.pidbox:Mailbox.producer_pool", None, "publishes replies"),
    Internal(f"{QOS}.restore_unacked", "self", "overridden: returns messages to their queues"),
    Internal(f"{QOS}._flush", "self", "forgets acknowledged messages"),
    Internal(f"{QOS}._delivered", None, "the unacknowledged messages"),
    Internal(f"{QOS}.can_consume_max_estimate", "self", "free slots under the prefetch limit"),
    Internal(f"{REDIS}.__init__", "self, args, kwargs", "extended: our list of unacknowledged messages"),
    Internal(f"{REDIS}.ack_emulation", None, "overridden: no copy of unacknowledged messages"),
    Internal(f"{REDIS}._create_client", "self, asynchronous", "extended: one client"),
    Internal(f"{REDIS}._brpop_start", "self, timeout", "overridden: BLMPOP"),
    Internal(f"{REDIS}._brpop_read", "self, options", "overridden: BLMPOP's reply"),
    Internal(f"{REDIS}._brpop_sent_at", None, "when the last pop was sent: kombu's health check reads it"),
    Internal(f"{REDIS}._in_poll", None, "the connection of the pop in flight"),
    Internal(f"{REDIS}._queue_cycle", None, "the order of the queues"),
    Internal(f"{REDIS}._flush_brpop_reauth", "self", "re-authentication after a pop"),
    Internal(f"{REDIS}.brpop_timeout", None, "how long a pop waits"),
    Internal(f"{REDIS}.conn_or_acquire", "self, client", "a client for a command"),
    Internal(f"{REDIS}.global_keyprefix", None, "the prefix of keys"),
    Internal("kombu.transport.redis:Transport.connection_errors", None, "extended: a rejected write is a lost connection"),
    Internal("kombu.transport.virtual.base:Transport._deliver", "self, message, queue", "extended: our delivery properties"),
)  # fmt: skip

ADAPTERS = (
    Internal("kombu.transport.virtual.base:Message.__init__", "self, payload, channel, kwargs", "extended: an undecodable body does not raise"),
    Internal("kombu.message:Message._decode", "self", "overridden: bounded JSON only"),
    Internal("kombu.message:Message.errors", None, "where a message keeps its decode errors"),
    Internal("kombu.transport.virtual.base:Channel.Message", None, "overridden: our message"),
    Internal(f"{REDIS}._connparams", "self, asynchronous", "extended: the bounded parser"),
    Internal(f"{REDIS}._brpop_read", "self, options", "overridden: checks an item before decoding"),
    Internal(f"{REDIS}._receive", "self", "overridden: reads bursts of broadcasts"),
    Internal(f"{REDIS}._receive_one", "self, c", "extended: a malformed broadcast does not raise"),
    Internal(f"{REDIS}._handle_message", "self, client, r", "extended: measures a broadcast"),
    Internal(f"{REDIS}._deliver_fanout_message", "self, message, exchange", "extended: checks a broadcast before decoding"),
    Internal(f"{REDIS}.subclient", None, "the subscription to broadcasts"),
    Internal("kombu.transport.redis:Transport.Channel", None, "overridden: our channel"),
    Internal("redis._parsers.base:_RESPBase.on_connect", "self, connection", "extended: the bounded buffer"),
    Internal(f"{BUFFER}.read", "self, length, timeout", "extended: cuts long strings off"),
    Internal(f"{BUFFER}.purge", "self", "overridden: frees memory during bursts"),
    Internal(f"{BUFFER}.rewind", "self, pos", "extended: not across a cut"),
    Internal(f"{BUFFER}._read_from_socket", "self, length, timeout, raise_on_timeout", "reads on"),
    Internal(f"{BUFFER}.unread_bytes", "self", "what is left of a reply"),
    Internal("kombu.pidbox:Mailbox.__init__", "self, namespace, type, connection, clock, accept, serializer, producer_pool, queue_ttl, queue_expires, queue_durable, queue_exclusive, reply_queue_ttl, reply_queue_expires", "extended: the bounded clock"),
    Internal("kombu.pidbox:Mailbox._broadcast", "self, command, arguments, destination, reply, timeout, limit, callback, channel, serializer, pattern, matcher", "extended: remembers whom it asked"),
    Internal("kombu.pidbox:Mailbox._collect", "self, ticket, limit, timeout, callback, channel, accept", "overridden: bounded replies"),
)  # fmt: skip


def rows(internals: tuple[Internal, ...]) -> str:
    """The table in Markdown."""
    lines = ["| name | parameters | used for |", "|---|---|---|"]
    for path, parameters, used_for in internals:
        shown = "" if parameters is None else f"`({parameters})`"
        lines.append(f"| `{path}` | {shown} | {used_for} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for table in (CELERY_EXT, ADAPTERS):
        print(rows(table))  # noqa: T201
