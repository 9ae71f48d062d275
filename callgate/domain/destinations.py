"""Where a link may be sent: to a pipeline's own queue, and to no queue of callgate, Celery or kombu."""

from __future__ import annotations

from collections.abc import Mapping

from callgate.domain.errors import InvalidLink

NAME_CHARS_MAX = 255
RESERVED_PREFIXES = ("callgate", "_kombu.", "unacked", "celeryev", "celery-task", "/")
"""Names of callgate's queues and cached figures, and of Celery's bindings, unacked messages, events and results."""
RESERVED_SUFFIXES = (".pidbox",)
"""Celery's remote control: requests to workers, and their replies."""
PLACE_OPTIONS = ("queue", "exchange", "routing_key")
ALLOWED_COMBINATIONS = ({"queue"}, {"exchange", "routing_key"})


def name_fault(name: object) -> str | None:
    """What is wrong with the name of a queue, exchange or routing key; None if a pipeline may use it."""
    if not isinstance(name, str):
        return f"the name of a queue must be text, not {type(name).__name__}"
    if not name or len(name) > NAME_CHARS_MAX:
        return f"the name of a queue has 1 to {NAME_CHARS_MAX} characters"
    if not name.isprintable() or name != name.strip():
        return "the name of a queue must be printable and must not begin or end with spaces"
    if name.startswith(RESERVED_PREFIXES) or name.endswith(RESERVED_SUFFIXES):
        return f"{name!r} is reserved for callgate or Celery"
    return None


def destination(options: Mapping[str, object]) -> dict[str, str]:
    """
    Read where a task's options send it: `queue`, or `exchange` and `routing_key`.

    With the unnamed exchange (`""`) the routing key is the name of a queue (AMQP's default exchange).

    Raises:
        InvalidLink: The options name no destination, or a reserved one.
    """
    named = {name: options[name] for name in PLACE_OPTIONS if options.get(name) is not None}
    if named.get("exchange") == "" and "routing_key" in named:
        named = {"queue": named["routing_key"]}
    if named.keys() not in ALLOWED_COMBINATIONS:
        raise InvalidLink("a link must name its queue, or its exchange and routing key")
    for name in named.values():
        if why := name_fault(name):
            raise InvalidLink(f"a link cannot be sent there: {why}")
    return {name: str(value) for name, value in named.items()}
