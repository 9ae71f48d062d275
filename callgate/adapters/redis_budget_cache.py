"""
Budget figures for readers that may be a moment behind: dashboards, pipelines that pace themselves.

A copy in Redis or Valkey, read through from the ledger and kept for a short while. It is never asked for admission, and
without it every reader simply asks the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import redis
import structlog
from redis.exceptions import RedisError

from callgate.domain.budget import BudgetFigures, Window
from callgate.per_process import PerProcess

log = structlog.get_logger(__name__)


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
        try:
            cached = self._redis().get(self._prefix + org_id)
        except RedisError as exc:
            log.warning("budget_cache_away", reason=type(exc).__name__)
            return load(org_id)
        if isinstance(cached, bytes):
            return [_figures(fields) for fields in json.loads(cached)]
        figures = load(org_id)
        try:
            text = json.dumps([_fields(f) for f in figures])
            self._redis().set(self._prefix + org_id, text, px=self._ttl_ms)
        except RedisError as exc:
            log.warning("budget_cache_away", reason=type(exc).__name__)
        return figures

    def close(self) -> None:
        """Close the connections."""
        self._redis().close()


def _fields(figures: BudgetFigures) -> dict[str, Any]:
    return {
        **asdict(figures),
        "starts_at": figures.starts_at.isoformat(),
        "ends_at": figures.ends_at.isoformat(),
    }


def _figures(fields: dict[str, Any]) -> BudgetFigures:
    return BudgetFigures(
        **{
            **fields,
            "window": Window(fields["window"]),
            "starts_at": datetime.fromisoformat(fields["starts_at"]),
            "ends_at": datetime.fromisoformat(fields["ends_at"]),
        }
    )
