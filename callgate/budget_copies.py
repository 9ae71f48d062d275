"""Where a client keeps its copies of budget figures."""

from __future__ import annotations

from callgate.adapters.memory.budget_cache import MemoryBudgetCache
from callgate.adapters.postgres.url import login_secret
from callgate.domain.errors import ConfigurationError
from callgate.domain.ports import BudgetCachePort
from callgate.settings import ClientSettings

MISSING = "CALLGATE_CACHE_URL needs PyNaCl: pip install 'callgate[cache]'"


def budget_copies(settings: ClientSettings) -> BudgetCachePort:
    """
    Copies in this process; shared by the processes of one login if `CALLGATE_CACHE_URL` is set.

    Raises:
        ConfigurationError: PyNaCl is not installed.
    """
    if settings.cache_url is None:
        return MemoryBudgetCache(ttl_s=settings.budget_cache_ttl_s)
    try:
        from callgate.adapters.redis_budget_cache import RedisBudgetCache
    except ImportError as exc:
        raise ConfigurationError(MISSING) from exc
    return RedisBudgetCache(
        settings.cache_url.get_secret_value(),
        login=login_secret(settings.database_url.get_secret_value()),
        ttl_s=settings.budget_cache_ttl_s,
        prefix=settings.broker_prefix,
    )
