"""Both budget caches: a copy that is a moment behind, and never more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import structlog
from redis import Redis

from callgate.adapters.memory_budget_cache import MemoryBudgetCache
from callgate.adapters.redis_budget_cache import RedisBudgetCache
from callgate.domain.budget import BudgetFigures, Window
from callgate.domain.ports import BudgetCachePort
from worker.embedded import Embedded

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


def a_copy(org: str, **changes: object) -> str:
    """What we keep of one budget, with something of it changed."""
    (figures,) = Ledger().budgets(org)
    kept = {**asdict(figures), "spent_nano_usd": 77, **changes}
    return json.dumps([kept], default=lambda moment: moment.isoformat())


NOT_OURS: dict[str, Callable[[str], bytes | str]] = {
    "garbage": lambda _: "garbage",
    "nothing": lambda _: "",
    "no UTF-8": lambda _: b"\xff\xfe",
    "null": lambda _: "null",
    "a number": lambda _: "7",
    "a mapping": lambda _: "{}",
    "a list of something else": lambda _: '[1, "two", null]',
    "a nest": lambda _: "[" * 50_000,
    "more than ours ever is": lambda org: a_copy(org) + " " * 1_000_000,
    "a field less": lambda _: '[{"budget_id": 1}]',
    "another organisation": lambda org: a_copy(org + "x"),
    "an unknown window": lambda org: a_copy(org, window="year"),
    "an amount as text": lambda org: a_copy(org, spent_nano_usd="7"),
    "a fraction": lambda org: a_copy(org, spent_nano_usd=7.5),
    "not a number": lambda org: a_copy(org, spent_nano_usd=float("nan")),
    "truth": lambda org: a_copy(org, spent_nano_usd=True),
    "a huge amount": lambda org: a_copy(org, spent_nano_usd=10**30),
    "a negative amount": lambda org: a_copy(org, reserved_nano_usd=-1),
    "no moment": lambda org: a_copy(org, ends_at="soon"),
    "a moment without a zone": lambda org: a_copy(org, ends_at="2026-11-03T00:00:00"),
}


@pytest.fixture
def shared(services: Embedded) -> Iterator[Redis]:
    """The Redis of the cache, as others who share it see it."""
    with Redis.from_url(services.broker_url) as client:
        yield client


@pytest.fixture
def real(services: Embedded) -> Iterator[RedisBudgetCache]:
    """The cache in Redis, with time for a test to look at it."""
    cache = RedisBudgetCache(services.broker_url, ttl_s=60)
    yield cache
    cache.close()


@pytest.mark.parametrize("what", NOT_OURS)
def test_what_is_not_ours_is_no_copy(
    real: RedisBudgetCache, shared: Redis, org: str, what: str
) -> None:
    """The ledger is asked, and its answer takes the place of what was there."""
    ledger = Ledger()
    shared.set(f"callgate:budgets:{org}", NOT_OURS[what](org), px=1_000)

    with structlog.testing.capture_logs() as logged:
        assert [real.get(org, ledger.budgets)[0].spent_nano_usd for _ in range(2)] == [1, 1]

    assert ledger.asked == 1
    assert not logged


@pytest.mark.parametrize("kind", ["list", "hash", "set", "stream"])
def test_another_kind_of_value_is_no_copy(
    real: RedisBudgetCache, shared: Redis, org: str, kind: str
) -> None:
    """A key of somebody's own making that happens to have our name."""
    ledger, key = Ledger(), f"callgate:budgets:{org}"
    if kind == "list":
        shared.rpush(key, "a")
    elif kind == "set":
        shared.sadd(key, "a")
    elif kind == "hash":
        shared.hset(key, "a", "b")
    else:
        shared.xadd(key, {"a": "b"})

    assert [real.get(org, ledger.budgets)[0].spent_nano_usd for _ in range(2)] == [1, 1]
    assert ledger.asked == 1


@pytest.mark.parametrize("px", [None, 3_600_000])
def test_what_does_not_expire_in_time_is_no_copy(
    real: RedisBudgetCache, shared: Redis, org: str, px: int | None
) -> None:
    """A copy that never expired would always be believed."""
    shared.set(f"callgate:budgets:{org}", a_copy(org), px=px)

    assert real.get(org, Ledger().budgets)[0].spent_nano_usd == 1


def test_a_copy_of_ours_is_believed(real: RedisBudgetCache, shared: Redis, org: str) -> None:
    """What the tests above change is what makes the difference."""
    shared.set(f"callgate:budgets:{org}", a_copy(org), px=60_000)

    assert real.get(org, Ledger().budgets)[0].spent_nano_usd == 77
