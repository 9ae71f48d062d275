"""Where a link may be sent: to a queue of a pipeline, and to nothing else that has a name in the broker."""

from __future__ import annotations

from collections.abc import Mapping

from callgate.domain.errors import InvalidLink

NAME_CHARS_MAX = 255
RESERVED_PREFIXES = ("callgate", "_kombu.", "unacked", "celeryev", "celery-task", "/")
"""callgate's own queues and copies; Celery's bindings, unfinished messages, events, results and channels."""
RESERVED_SUFFIXES = (".pidbox",)
"""What Celery's workers hear questions under, and who asked them the answers."""
PLACE = ("queue", "exchange", "routing_key")
FORMS = ({"queue"}, {"exchange", "routing_key"})


def misfit(name: object) -> str | None:
    """What speaks against a name of a queue, an exchange or a routing key; None if a pipeline may have it."""
    if not isinstance(name, str):
        return f"the name of a queue is text, not {type(name).__name__}"
    if not name or len(name) > NAME_CHARS_MAX:
        return f"the name of a queue has 1 to {NAME_CHARS_MAX} characters"
    if not name.isprintable() or name != name.strip():
        return "the name of a queue is printable, without spaces around it"
    if name.startswith(RESERVED_PREFIXES) or name.endswith(RESERVED_SUFFIXES):
        return f"{name!r} is no queue of a pipeline"
    return None


def destination(options: Mapping[str, object]) -> dict[str, str]:
    """
    Where options of a task send it: a `queue`, or an `exchange` with a `routing_key`.

    The unnamed exchange takes a routing key for the name of a queue.

    Raises:
        InvalidLink: They name no place, or none that a pipeline may have.
    """
    named = {name: options[name] for name in PLACE if options.get(name) is not None}
    if named.get("exchange") == "" and "routing_key" in named:
        named = {"queue": named["routing_key"]}
    if named.keys() not in FORMS:
        raise InvalidLink("a link names its queue, or its exchange and routing key")
    for name in named.values():
        if why := misfit(name):
            raise InvalidLink(f"a link cannot be sent there: {why}")
    return {name: str(value) for name, value in named.items()}
