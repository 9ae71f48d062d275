"""Both budget caches: a copy that is a moment behind, and never more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import structlog

from callgate.adapters.memory_budget_cache import MemoryBudgetCache
from callgate.adapters.redis_budget_cache import RedisBudgetCache
from callgate.domain.budget import BudgetFigures, Window
from callgate.domain.ports import BudgetCachePort

TTL_S = 0.2
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
_orgs = count()


class Ledger:
    """Figures that are a little higher each time somebody asks."""

    def __init__(self) -> None:
        self.asked = 0

    def budgets(self, org_id: str) -> list[BudgetFigures]:
        """One budget, with as many nano-USD spent as there were questions."""
        self.asked += 1
        day = timedelta(days=1)
        return [
            BudgetFigures(1, org_id, "org", Window.DAY, "UTC", NOON, NOON + day, 100, 3, self.asked)
        ]


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[BudgetCachePort]:
    """A cache that keeps figures for a fifth of a second."""
    if request.param == "memory":
        yield MemoryBudgetCache(ttl_s=TTL_S)
        return
    services = request.getfixturevalue("services")
    real = RedisBudgetCache(services.broker_url, ttl_s=TTL_S)
    yield real
    real.close()


@pytest.fixture
def org() -> str:
    """An organisation nobody has asked about."""
    return f"org-{next(_orgs)}-{datetime.now(UTC).timestamp()}"


def test_a_second_reader_gets_the_copy(cache: BudgetCachePort, org: str) -> None:
    """What was loaded a moment ago is not loaded again, and nothing of it is changed."""
    ledger = Ledger()
    first = cache.get(org, ledger.budgets)

    second = cache.get(org, ledger.budgets)

    assert first == second == [*Ledger().budgets(org)]
    assert ledger.asked == 1


def test_organisations_do_not_mix(cache: BudgetCachePort, org: str) -> None:
    """Each organisation has its own figures."""
    ledger = Ledger()
    cache.get(org, ledger.budgets)

    (other,) = cache.get(org + "x", ledger.budgets)

    assert other.org_id == org + "x"
    assert ledger.asked == 2


def test_a_copy_does_not_outlive_its_time(
    cache: BudgetCachePort, org: str, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """After the time to live the ledger is asked again."""
    ledger = Ledger()
    cache.get(org, ledger.budgets)

    eventually(lambda: cache.get(org, ledger.budgets)[0].spent_nano_usd == 2)


def test_without_the_cache_the_ledger_answers(org: str) -> None:
    """A cache that cannot be reached costs a warning and nothing else."""
    ledger = Ledger()
    cache = RedisBudgetCache("redis://127.0.0.1:1/0", ttl_s=TTL_S)

    with structlog.testing.capture_logs() as logged:
        figures = cache.get(org, ledger.budgets)

    cache.close()
    assert figures[0].spent_nano_usd == 1
    assert [line["event"] for line in logged] == ["budget_cache_away"]
