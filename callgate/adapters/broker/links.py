"""
Links: the Celery signatures that are published when a call ends, as the ledger stores them.

A link is stored at submit as JSON, `{"link": signature | null, "link_error": signature | null}`; the span of the
submission is in it too if there is one (`traceparent`). The signature's own
app resolves the route of every task in it, so its tasks may be in any queue of the same broker. A worker publishes the
link later, over callgate's own connection. A link that it could not publish as the signature's app would is refused at
submit, because later no one would notice the difference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from celery import Celery
from celery.canvas import Signature
from kombu import Connection
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from callgate.domain import trace_context
from callgate.domain.bounds import LINK_MAX_BYTES
from callgate.domain.destinations import destination
from callgate.domain.errors import InvalidLink

TASK_CHARS_MAX = 255
PLACES_KNOWN_MAX = 1_000
WRONG_TYPE = "WRONGTYPE"
ROUTE = frozenset({"queue", "exchange", "routing_key", "exchange_type"})
KEPT = frozenset({"expires", "ignore_result", "priority", "shadow"})
"""
Options that a link is published with; `serializer` too, if it is JSON. Any other option would be lost.

`task_id` is the submission's id, by which a receiver recognises a repeated delivery. A countdown would keep the message
in a worker's memory. A chain's own options would apply to its first task only.
"""
REMEDY = "its task would never hear of the call; both must use one broker, database and prefix"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0", ""})  # noqa: S104 - compared, not listened on


def sendable(text: str, *, succeeded: bool) -> dict[str, Any] | None:
    """
    Return the link to publish for this end of the call, or None; only with parts that `Links` would have kept.

    Other software may have written the row of the submission, so everything is checked again.

    Raises:
        InvalidLink: It can never be published.
    """
    if len(text.encode()) > LINK_MAX_BYTES:
        raise InvalidLink(f"links have at most {LINK_MAX_BYTES} bytes")
    try:
        chosen = json.loads(text)["link" if succeeded else "link_error"]
        return None if chosen is None else _sendable(chosen)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as exc:
        raise InvalidLink(f"not a link: {type(exc).__name__}") from exc


def _sendable(chosen: dict[str, Any]) -> dict[str, Any]:
    if chosen["subtask_type"] is None:
        return _sendable_task(chosen)
    if chosen["subtask_type"] != "chain" or not chosen["kwargs"]["tasks"]:
        raise InvalidLink("a link is a task or a chain of tasks")
    tasks = [_sendable_task(task) for task in chosen["kwargs"]["tasks"]]
    chain = {"task": "celery.chain", "args": [], "kwargs": {"tasks": tasks}, "options": {}}
    return {**chain, "subtask_type": "chain", "immutable": False}


def _sendable_task(task: dict[str, Any]) -> dict[str, Any]:
    name, args, kwargs, options = (task[part] for part in ("task", "args", "kwargs", "options"))
    if task.get("subtask_type") is not None:
        raise InvalidLink("a chain in a link holds tasks only")
    if not isinstance(name, str) or not 0 < len(name) <= TASK_CHARS_MAX or not name.isprintable():
        raise InvalidLink(f"the name of a task has 1 to {TASK_CHARS_MAX} printable characters")
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(options, dict):
        raise InvalidLink("a task has a list of args, and mappings of kwargs and options")
    kept = {option: options[option] for option in KEPT & options.keys()}
    return {
        "task": name,
        "args": args,
        "kwargs": kwargs,
        "options": {**kept, **destination(options)},
        "subtask_type": None,
        "immutable": task.get("immutable") is True,
    }


def span_of(text: str) -> str | None:
    """The span of the submission whose links these are; None if it had none."""
    try:
        return trace_context.checked(json.loads(text).get(trace_context.HEADER))
    except (ValueError, AttributeError, RecursionError):
        return None


class Links:
    """Checks links and makes their stored text, for calls that `app` publishes."""

    def __init__(self, app: Celery, *, timeout_s: float, asks_broker: bool = True) -> None:
        """
        Compose.

        Args:
            timeout_s: Bounds each query to a broker; a broker with another address than ours is queried.
            asks_broker: False: there is no broker, and that both apps share one is taken for granted.
        """
        self._app = app
        self._asks_broker = asks_broker
        self._timeout_s = timeout_s
        self._found_same: set[str] = set()
        self._asked: set[str] = set()

    def text(
        self,
        link: Signature | None,
        link_error: Signature | None,
        *,
        traceparent: str | None = None,
    ) -> str | None:
        """
        Return the text that the ledger stores of a submission's links, and of its span.

        Raises:
            InvalidLink: A worker could not publish it as its own app would.
        """
        if link is None and link_error is None:
            return None
        parts: dict[str, Any] = {"link": self._frozen(link), "link_error": self._frozen(link_error)}
        if traceparent is not None:
            parts[trace_context.HEADER] = traceparent
        text = _json(parts)
        if len(text.encode()) > LINK_MAX_BYTES:
            raise InvalidLink(f"links have at most {LINK_MAX_BYTES} bytes")
        return text

    def _frozen(self, signature: Signature | None) -> dict[str, Any] | None:
        if signature is None:
            return None
        if not isinstance(signature, Signature) or not signature.task:
            raise InvalidLink(f"a link is a Celery signature, not {type(signature).__name__}")
        if signature.subtask_type not in (None, "chain"):
            raise InvalidLink(f"a link is a task or a chain, not a {signature.subtask_type}")
        app = signature.app
        self._check_app(app)
        frozen: dict[str, Any] = json.loads(_json(dict(signature.clone())))
        leaves = [frozen]
        if signature.subtask_type == "chain":
            _refuse_lost(frozen["options"], kept=frozenset())
            leaves = frozen["kwargs"]["tasks"]
        if not leaves:
            raise InvalidLink("a chain in a link has at least one task")
        for leaf in leaves:
            _freeze_route(app, leaf)
            self._check_queue(leaf["options"].get("queue"))
        return frozen

    def _check_queue(self, name: str | None) -> None:
        """Refuse a key that is not a list; the broker is queried once per name, if it answers."""
        if name is None or name in self._asked or not self._asks_broker:
            return
        with self._app.connection_for_write() as ours:
            prefix = _Place.of(ours).prefix
            try:
                with _server(ours, self._timeout_s) as server:
                    server.llen(prefix + name)
            except (RedisError, OSError, ValueError, TypeError) as exc:
                if WRONG_TYPE in str(exc):
                    raise InvalidLink(f"{name!r} is a key of the broker that is no queue") from None
        if len(self._asked) < PLACES_KNOWN_MAX:
            self._asked.add(name)

    def _check_app(self, app: Celery) -> None:
        """Refuse an app whose tasks do not receive our messages, or do not accept JSON."""
        if not {"json", "application/json"} & set(app.conf.accept_content):
            raise InvalidLink("a link is sent as JSON, and its app does not accept that")
        if not self._asks_broker:
            return
        with self._app.connection_for_write() as ours, _connection_of(app) as theirs:
            place, other = _Place.of(ours), _Place.of(theirs)
            _refuse_other_place(other, place)
            if not self._is_same_server(ours, theirs):
                raise InvalidLink(
                    f"the app of the link uses the broker at {other.address}, callgate another, at {place.address}:"
                    f" {REMEDY}"
                )

    def _is_same_server(self, ours: Connection, theirs: Connection) -> bool:
        """False only if it is certain: one server has many names, so where they differ the run ids are compared."""
        address = _Place.of(theirs).address
        if address in (self._found_same | {_Place.of(ours).address}):
            return True
        identities = {_run_id(connection, self._timeout_s) for connection in (ours, theirs)}
        if None in identities:
            return True
        if len(identities) == 1:
            self._found_same.add(address)
        return len(identities) == 1


def _connection_of(app: Celery) -> Connection:
    try:
        connection: Connection = app.connection_for_write()
        connection.get_transport_cls()
    except Exception as exc:
        # A malformed URL, or a transport that is not installed. The error's text may hold a password.
        raise InvalidLink(
            f"the broker of the link's app cannot be used: {type(exc).__name__}"
        ) from None
    return connection


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an app's messages go, according to its settings; equal for spellings with the same meaning."""

    transport: str
    database: str
    prefix: str
    host: str
    port: int

    @classmethod
    def of(cls, connection: Connection) -> _Place:
        host, database = connection.hostname or "", str(connection.virtual_host or "")
        if "://" in host:
            # Kombu's way to write a Unix socket.
            database = dict(parse_qsl(urlsplit(host).query)).get("virtual_host", database)
            host = "a Unix socket"
        transport = connection.get_transport_cls()
        return cls(
            transport.driver_type,
            database.strip("/") or "0",
            str((connection.transport_options or {}).get("global_keyprefix") or ""),
            "localhost" if host.lower() in LOOPBACK else host.lower(),
            int(connection.port or transport.default_port or 0),
        )

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def _refuse_other_place(theirs: _Place, ours: _Place) -> None:
    for what in ("transport", "database", "prefix"):
        if (found := getattr(theirs, what)) != (expected := getattr(ours, what)):
            raise InvalidLink(
                f"the app of the link uses {what} {found!r} of a broker, callgate {expected!r}: {REMEDY}"
            )


def _run_id(connection: Connection, timeout_s: float) -> str | None:
    """Return the run id of a server; None if it does not answer in time, or hides it."""
    try:
        with _server(connection, timeout_s) as server:
            return str(server.info("server")["run_id"])
    except (RedisError, OSError, ValueError, TypeError, KeyError):
        # A Unix socket, a sentinel, an ACL without INFO, no server: unknown.
        return None


def _server(connection: Connection, timeout_s: float) -> Redis:
    """Return a client for one query, without retries."""
    tls = connection.ssl if isinstance(connection.ssl, dict) else {}
    place = _Place.of(connection)
    return Redis(
        host=connection.hostname or "127.0.0.1",
        port=place.port,
        db=int(place.database) if place.database.isdigit() else 0,
        username=connection.userid or None,
        password=connection.password,
        ssl=bool(connection.ssl),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )


def _json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise InvalidLink(f"the arguments and options of a link must be JSON: {exc}") from exc


def _refuse_lost(options: dict[str, Any], kept: frozenset[str]) -> None:
    if lost := sorted(name for name, value in options.items() if value and name not in kept):
        raise InvalidLink(
            f"a link cannot keep {', '.join(lost)}: set it on the task, or let a task of yours do it"
        )


def _freeze_route(app: Celery, leaf: dict[str, Any]) -> None:
    """Write the route into the signature, so that no declared queue is needed on our side."""
    if leaf.get("subtask_type"):
        raise InvalidLink(f"a chain in a link holds tasks only, not a {leaf['subtask_type']}")
    _refuse_lost(leaf["options"], KEPT | ROUTE | {"serializer"})
    task = app.tasks.get(leaf["task"])
    given = {**(task._get_exec_options() if task else {}), **leaf["options"]}
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("serializer", "json") != "json":
        raise InvalidLink(f"a link is sent as JSON, not as {given['serializer']}")
    route = app.amqp.router.route(dict(given), leaf["task"], leaf["args"], leaf["kwargs"])
    queue = route.pop("queue", None)
    if queue is None or (queue.exchange is not None and queue.exchange.type != "direct"):
        exchange = queue.exchange.name if queue else str(route.get("exchange") or "")
        routing_key = route.get("routing_key") or (queue.routing_key if queue else "")
        place = {"exchange": exchange, "routing_key": routing_key}
    else:
        place = {"queue": queue.name}
    kept = {name: route[name] for name in KEPT & route.keys()}
    leaf["options"] = {**kept, **destination(place)}
