"""What `callgate doctor` looks at in a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from celery import Celery

from callgate.adapters.broker.bounds import ITEM_MAX_BYTES
from callgate.adapters.broker.consumers import (
    ANSWER_S,
    CLIENT_COMMANDS,
    OUR_QUEUES,
    consumers,
    refused_command,
    takes_items_of,
)
from callgate.domain.errors import BrokerUnavailable
from callgate.services.doctor import Check, Seen, failure, warning

T = TypeVar("T")
REDIS_MIN = 7
MEMORY_USED = 0.9
MEMORY_TODO = "Raise maxmemory, and see why messages wait: `backlog`, and the pipelines' queues."
FEWER = (
    "A process may be frozen (`workers`), or two may share one name: start them with different `--name`,"
    " or on hosts with different names."
)
NOT_TOLD = "the broker does not say"


def broker_checks(
    app: Celery, *, timeout_s: float, count_alive: Callable[[], int | None] = lambda: None
) -> list[Check]:
    """
    Checks of the broker: its version, its limits and memory, its user's rights, and who consumes the queues.

    Args:
        count_alive: Says how many worker processes the ledger knows to be alive; None: that is not known.
    """
    return [
        Check("broker", lambda: _broker(app, timeout_s)),
        Check("item size", lambda: _item_size(app), needs="broker"),
        Check("rights", lambda: _rights(app), needs="broker"),
        Check("persistence", lambda: _persistence(app), needs="broker"),
        Check("eviction", lambda: _eviction(app), needs="broker"),
        Check("consumers", lambda: _consumers(app, count_alive), needs="broker"),
    ]


def _broker(app: Celery, timeout_s: float) -> Seen:
    with app.connection_for_write() as connection:
        url = _shown(connection)
        try:
            # A second try follows two seconds later, or sooner where no more time is given.
            pause_s = min(timeout_s, 2)
            connection.ensure_connection(max_retries=1, interval_start=pause_s, timeout=timeout_s)
        except Exception as exc:
            # Each transport has errors of its own. All of them mean that the broker cannot be used.
            return failure(f"{url} cannot be used ({exc or type(exc).__name__})")
        if (version := redis_version(connection)) and version[0] < REDIS_MIN:
            return failure(
                f"{url} is Redis {version[0]}: workers take messages with BLMPOP, which it lacks",
                f"Use Redis {REDIS_MIN} or later, or Valkey.",
            )
        return Seen(f"{url} answers")


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
    """Whether the broker refuses items that are too large for callgate. It may not read the setting, so it tries."""
    try:
        takes_more = takes_items_of(app, ITEM_MAX_BYTES + 1)
    except Exception as exc:
        # As in `_broker`.
        return warning(f"not known ({type(exc).__name__})", "Run the doctor again.")
    if not takes_more:
        return Seen("the broker refuses items of more than 1 MiB")
    return warning("the broker takes items of more than 1 MiB")


def _rights(app: Celery) -> Seen:
    if refused := _answered(lambda: refused_command(app, CLIENT_COMMANDS)):
        return failure(f"the user of CALLGATE_BROKER_URL may not run {refused}")
    return Seen("the user of CALLGATE_BROKER_URL may publish")


def _persistence(app: Celery) -> Seen:
    found = _info(app, "persistence")
    if "aof_enabled" not in found:
        return Seen(NOT_TOLD)
    if not int(found["aof_enabled"]):
        return warning("the broker keeps no append-only file: a restart loses the newest messages")
    if found.get("aof_last_write_status", "ok") != "ok":
        return warning(
            "the broker could not write its append-only file", "Look at its disk and its log."
        )
    return Seen("the broker keeps an append-only file")


def _eviction(app: Celery) -> Seen:
    """Queues have no time to live, so the `volatile` policies do not drop them."""
    found = {**_info(app, "memory"), **_info(app, "stats")}
    if "maxmemory" not in found:
        return Seen(NOT_TOLD)
    policy, limit_bytes = str(found.get("maxmemory_policy")), int(found["maxmemory"])
    used_mib, limit_mib = int(found.get("used_memory", 0)) / 2**20, limit_bytes / 2**20
    memory = f"{used_mib:.0f} MiB are used" + (
        f" of {limit_mib:.0f} MiB" if limit_bytes else ", without a limit"
    )
    evicted = int(found.get("evicted_keys", 0))
    sentence = f"maxmemory-policy is {policy}; {memory}; {evicted} keys were dropped"
    if policy.startswith("allkeys"):
        return warning(f"a full broker drops queues: {sentence}")
    if limit_bytes and used_mib > MEMORY_USED * limit_mib:
        return warning(
            f"the broker is nearly full, and then takes no calls: {sentence}", MEMORY_TODO
        )
    return Seen(sentence)


def _info(app: Celery, section: str) -> dict[str, Any]:
    """A section of INFO; empty if an ACL forbids it, or a proxy has none."""
    try:
        with app.connection_for_write() as connection:
            return dict(connection.default_channel.client.info(section))
    except Exception:
        # As in `redis_version`.
        return {}


def _consumers(app: Celery, count_alive: Callable[[], int | None]) -> Seen:
    found = _answered(lambda: consumers(app))
    alive = count_alive() or 0
    if len(found) < alive:
        # A busy worker may have answered too late.
        found = _answered(lambda: consumers(app))
    if foreign := [f"{c.name} ({', '.join(c.queues)})" for c in found if not c.is_ours]:
        return failure(
            f"a worker that is not callgate's takes its messages: {'; '.join(foreign)}; they are lost until a sweep"
            " finds their calls",
            "Stop that worker, or give it other queues.",
        )
    counts = {queue: sum(queue in c.queues for c in found) for queue in OUR_QUEUES}
    by_queue = ", ".join(f"{queue} {count}" for queue, count in counts.items())
    if not found:
        return warning(f"no Celery worker answered within {ANSWER_S:.0f} s")
    if not all(counts.values()):
        return warning(
            f"a queue has no worker: {by_queue}",
            "Start a worker for it: `callgate worker` without `--queues` consumes all.",
        )
    if len(found) < alive:
        return warning(
            f"only {len(found)} of {alive} live workers answer; by queue: {by_queue}", FEWER
        )
    return Seen(
        f"{len(found)} workers of callgate answer, and no foreign one; by queue: {by_queue}"
    )


def _answered(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Exception as exc:
        # As in `_broker`.
        raise BrokerUnavailable(f"the broker did not answer: {type(exc).__name__}: {exc}") from exc
