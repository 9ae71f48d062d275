"""
Budget figures for readers that may be a moment behind: dashboards, pipelines that pace themselves.

A copy in Redis or Valkey, read through from the ledger and kept for a short while. It is never asked for admission, and
without it every reader simply asks the ledger. Others may use the same Redis: what is found there and is not such a
copy counts as none, and is written over.
"""

from __future__ import annotations

from collections.abc import Callable

import redis
import structlog
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError, ResponseError

from callgate.domain.budget import BudgetFigures
from callgate.per_process import PerProcess

log = structlog.get_logger(__name__)

COPY_BYTES_MAX = 64 * 1024
"""An organisation has a handful of budgets, each of some 300 bytes; more is not ours, and is not read."""
BIGINT_MAX = 2**63 - 1
_FIGURES = TypeAdapter(list[BudgetFigures])


class RedisBudgetCache:
    """`BudgetCachePort` over Redis or Valkey."""

    def __init__(
        self, url: str, *, ttl_s: float, prefix: str = "", timeout_s: float = 0.25
    ) -> None:
        """Connect to nothing yet. Figures are at most `ttl_s` seconds behind; a slow cache is given up on quickly."""
        self._redis = PerProcess(
            lambda: redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            )
        )
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._prefix = f"{prefix}callgate:budgets:"

    def get(self, org_id: str, load: Callable[[str], list[BudgetFigures]]) -> list[BudgetFigures]:
        """The figures of an organisation; see `BudgetCachePort.get`."""
        key = self._prefix + org_id
        try:
            copy = self._copy(key, org_id)
        except RedisError as exc:
            log.warning("budget_cache_away", reason=type(exc).__name__)
            return load(org_id)
        if copy is not None:
            return copy
        figures = load(org_id)
        try:
            self._redis().set(key, _FIGURES.dump_json(figures), px=self._ttl_ms)
        except RedisError as exc:
            log.warning("budget_cache_away", reason=type(exc).__name__)
        return figures

    def close(self) -> None:
        """Close the connections."""
        self._redis().close()

    def _copy(self, key: str, org_id: str) -> list[BudgetFigures] | None:
        """What is kept, if it is a copy of ours: small, whole, of this organisation, and about to expire."""
        with self._redis().pipeline(transaction=False) as pipe:
            pipe.getrange(key, 0, COPY_BYTES_MAX)
            pipe.pttl(key)
            text, expires_in_ms = pipe.execute(raise_on_error=False)
        if isinstance(text, ResponseError) and "WRONGTYPE" in str(text):
            return None
        for answer in (text, expires_in_ms):
            if isinstance(answer, Exception):
                raise answer
        if not 0 <= expires_in_ms <= self._ttl_ms or len(text) > COPY_BYTES_MAX:
            return None
        try:
            copy = _FIGURES.validate_json(text, strict=True)
        except ValidationError:
            return None
        return copy if all(_is_of(org_id, figures) for figures in copy) else None


def _is_of(org_id: str, figures: BudgetFigures) -> bool:
    """Ask whether the ledger could have said so of this organisation."""
    amounts = (figures.limit_nano_usd, figures.reserved_nano_usd, figures.spent_nano_usd)
    return (
        figures.org_id == org_id
        and all(0 <= amount <= BIGINT_MAX for amount in amounts)
        and None not in (figures.starts_at.tzinfo, figures.ends_at.tzinfo)
    )
