"""What `callgate doctor` looks at in a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from celery import Celery

from callgate.adapters.broker.bounds import ITEM_BYTES_MAX
from callgate.adapters.broker.consumers import (
    CLIENT_COMMANDS,
    consumers,
    refused_command,
    takes_items_of,
)
from callgate.domain.errors import BrokerUnavailable, ConfigurationError
from callgate.services.doctor import Check, Seen

T = TypeVar("T")
REDIS_MIN = 7


def broker_checks(app: Celery, *, timeout_s: float) -> list[Check]:
    """Checks of the broker: its version, its limits, the rights of its user, and who consumes the queues."""
    return [
        Check("broker", lambda: _broker(app, timeout_s)),
        Check("item size", lambda: _item_size(app), needs="broker"),
        Check("rights", lambda: _rights(app), needs="broker"),
        Check("consumers", lambda: _consumers(app), needs="broker"),
    ]


def _broker(app: Celery, timeout_s: float) -> str:
    with app.connection_for_write() as connection:
        url = _shown(connection)
        try:
            # A second try follows two seconds later, or sooner where no more time is given.
            pause_s = min(timeout_s, 2)
            connection.ensure_connection(max_retries=1, interval_start=pause_s, timeout=timeout_s)
        except Exception as exc:
            # Each transport has errors of its own. All of them mean that the broker cannot be used.
            raise BrokerUnavailable(
                f"{url} cannot be used ({exc or type(exc).__name__}):"
                " check CALLGATE_BROKER_URL, and that the broker runs"
            ) from exc
        if (version := redis_version(connection)) and version[0] < REDIS_MIN:
            raise ConfigurationError(
                f"{url} is Redis {version[0]}: workers take messages with BLMPOP, which needs"
                f" Redis {REDIS_MIN} or Valkey"
            )
        return f"{url} answers"


def _shown(connection: Any) -> str:
    """The broker's URL without its password; kombu's own text names the transport's class as its scheme."""
    scheme = "rediss" if connection.ssl else "redis"
    return f"{scheme}://{connection.as_uri().partition('://')[2]}"


def redis_version(connection: Any) -> list[int] | None:
    """The broker's version; None if an ACL forbids INFO, or a proxy answers in its own way."""
    try:
        fields = connection.default_channel.client.info("server")
        return [int(part) for part in fields["redis_version"].split(".")]
    except Exception:
        # The broker is known to answer. One that hides its version is not refused.
        return None


def _item_size(app: Celery) -> Seen:
    """Whether the broker refuses items that no reader would read. Its user may not ask for the setting itself."""
    try:
        takes_more = takes_items_of(app, ITEM_BYTES_MAX + 1)
    except Exception as exc:
        # As in `_broker`.
        return Seen(f"not known ({type(exc).__name__})", is_warning=True)
    if not takes_more:
        return Seen("the broker refuses items of more than 1 MiB")
    return Seen(
        "the broker takes items of more than 1 MiB: set proto-max-bulk-len to 1mb, so that a few"
        " large items cannot fill its memory",
        is_warning=True,
    )


def _rights(app: Celery) -> str:
    if refused := _answered(lambda: refused_command(app, CLIENT_COMMANDS)):
        raise ConfigurationError(
            f"the user of CALLGATE_BROKER_URL may not run {refused}: docs/security.md lists the commands it needs"
        )
    return "the user of CALLGATE_BROKER_URL may publish"


def _consumers(app: Celery) -> str:
    found = _answered(lambda: consumers(app))
    if foreign := [f"{c.name} ({', '.join(c.queues)})" for c in found if not c.is_ours]:
        raise ConfigurationError(
            f"a worker that is not callgate's takes its messages: {'; '.join(foreign)}. Those messages are lost until"
            " a sweep finds their calls: stop that worker, or give it other queues"
        )
    return f"{len(found)} workers of callgate answer, and no foreign one"


def _answered(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Exception as exc:
        # As in `_broker`.
        raise BrokerUnavailable(f"the broker did not answer: {type(exc).__name__}: {exc}") from exc
