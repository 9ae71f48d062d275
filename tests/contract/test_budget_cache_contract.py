"""The contract of budget caches: figures at most one TTL old, of the right organisation and login."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count

import pytest
import structlog
from nacl.secret import Aead
from redis import Redis

from callgate.adapters.memory.budget_cache import MemoryBudgetCache
from callgate.adapters.redis_budget_cache import RedisBudgetCache
from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.ports import BudgetCachePort
from devkit.servers.embedded import DevServers
from tests.support.waiting import until

TTL_S = 0.2
LOGIN = "acme:secret@ledger"
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
_orgs = count()


class Ledger:
    """Returns figures that are higher with each question."""

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
    """A cache with a TTL of 0.2 s."""
    if request.param == "memory":
        yield MemoryBudgetCache(ttl_s=TTL_S)
        return
    services = request.getfixturevalue("services")
    real = RedisBudgetCache(services.broker_url, login=LOGIN, ttl_s=TTL_S)
    yield real
    real.close()


@pytest.fixture
def org() -> str:
    """A new organisation."""
    return f"org-{next(_orgs)}-{datetime.now(UTC).timestamp()}"


def test_a_second_reader_gets_the_cached_figures(cache: BudgetCachePort, org: str) -> None:
    """They are unchanged, and the ledger is not asked again."""
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


def test_an_entry_expires_after_its_ttl(cache: BudgetCachePort, org: str) -> None:
    ledger = Ledger()
    cache.get(org, ledger.budgets)

    until(lambda: cache.get(org, ledger.budgets)[0].spent_nano_usd == 2)


def test_without_the_cache_the_ledger_answers(org: str) -> None:
    """An unreachable cache costs one warning."""
    ledger = Ledger()
    cache = RedisBudgetCache("redis://127.0.0.1:1/0", login=LOGIN, ttl_s=TTL_S)

    with structlog.testing.capture_logs() as logged:
        figures = cache.get(org, ledger.budgets)

    cache.close()
    assert figures[0].spent_nano_usd == 1
    assert [line["event"] for line in logged] == ["budget_cache.unavailable"]


def a_copy(org: str, **changes: object) -> str:
    """The JSON of one budget in an entry, with changes."""
    (figures,) = Ledger().budgets(org)
    kept = {**asdict(figures), "spent_nano_usd": 77, **changes}
    return json.dumps([kept], default=lambda moment: moment.isoformat())


@lru_cache
def box_of(login: str) -> Aead:
    """The cipher of a login's entries."""
    return Aead(RedisBudgetCache("redis://127.0.0.1:1/0", login=login, ttl_s=60)._key)


def sealed(org: str, plain: bytes | str, *, by: str = LOGIN, age_s: float = 0) -> bytes:
    """These bytes as an entry that a login would have written so many seconds ago."""
    at_ms = round((time.time() - age_s) * 1000)
    plain = plain.encode() if isinstance(plain, str) else plain
    return bytes(box_of(by).encrypt(at_ms.to_bytes(8) + plain, org.encode()))


ODD: dict[str, Callable[[str], bytes | str]] = {
    "no ciphertext": lambda _: "no ciphertext",
    "nothing": lambda _: "",
    "no UTF-8": lambda _: b"\xff\xfe",
    "null": lambda _: "null",
    "a number": lambda _: "7",
    "a mapping": lambda _: "{}",
    "a list of something else": lambda _: '[1, "two", null]',
    "a nest": lambda _: "[" * 50_000,
    "a copy": a_copy,
    "no budget at all": lambda _: "[]",
    "larger than any entry": lambda org: a_copy(org) + " " * 1_000_000,
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
SEALED_ODDLY = ODD.keys() - {"a copy", "no budget at all"}


@pytest.fixture
def shared(services: DevServers) -> Iterator[Redis]:
    """The cache's Redis, as another client sees it."""
    with Redis.from_url(services.broker_url) as client:
        yield client


@pytest.fixture(scope="module")
def real(services: DevServers) -> Iterator[RedisBudgetCache]:
    """The Redis cache with a TTL long enough for a test to inspect entries."""
    cache = RedisBudgetCache(services.broker_url, login=LOGIN, ttl_s=60)
    yield cache
    cache.close()


@pytest.fixture
def key(real: RedisBudgetCache, shared: Redis, org: str) -> str:
    """The key of the organisation's entry: the one that is new after a read."""
    before = set(shared.scan_iter("callgate:budgets:*"))
    real.get(org, Ledger().budgets)
    (name,) = set(shared.scan_iter("callgate:budgets:*")) - before
    shared.delete(name)
    return str(name.decode())


@pytest.mark.parametrize("what", ODD)
def test_an_entry_of_another_writer_is_overwritten(
    real: RedisBudgetCache, shared: Redis, org: str, key: str, what: str
) -> None:
    """However plausible it looks, the ledger is asked."""
    ledger = Ledger()
    shared.set(key, ODD[what](org), px=1_000)

    with structlog.testing.capture_logs() as logged:
        assert [real.get(org, ledger.budgets)[0].spent_nano_usd for _ in range(2)] == [1, 1]

    assert ledger.asked == 1
    assert not logged


@pytest.mark.parametrize("what", sorted(SEALED_ODDLY))
def test_impossible_figures_count_as_missing(
    real: RedisBudgetCache, shared: Redis, org: str, key: str, what: str
) -> None:
    """Even if they are encrypted with the right key, for example by another version."""
    ledger = Ledger()
    shared.set(key, sealed(org, ODD[what](org)))

    assert [real.get(org, ledger.budgets)[0].spent_nano_usd for _ in range(2)] == [1, 1]
    assert ledger.asked == 1


@pytest.mark.parametrize("kind", ["list", "hash", "set", "stream"])
def test_a_value_of_another_redis_type_counts_as_missing(
    real: RedisBudgetCache, shared: Redis, org: str, key: str, kind: str
) -> None:
    ledger = Ledger()
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


@pytest.mark.parametrize(
    ("by", "of", "age_s"),
    [("rival:secret@ledger", "", 0), (LOGIN, "x", 0), (LOGIN, "", 61), (LOGIN, "", -30)],
    ids=["another login", "another organisation", "too old", "from the future"],
)
def test_an_entry_is_bound_to_login_organisation_and_time(
    real: RedisBudgetCache, shared: Redis, org: str, key: str, by: str, of: str, age_s: float
) -> None:
    """A replayed, renewed or moved entry is not accepted, whatever its expiry in Redis."""
    shared.set(key, sealed(org + of, a_copy(org), by=by, age_s=age_s))

    assert real.get(org, Ledger().budgets)[0].spent_nano_usd == 1


def test_an_unchanged_entry_is_accepted(
    real: RedisBudgetCache, shared: Redis, org: str, key: str
) -> None:
    """The control for the tests above."""
    shared.set(key, sealed(org, a_copy(org)))

    assert real.get(org, Ledger().budgets)[0].spent_nano_usd == 77


def test_a_changed_bit_is_found(real: RedisBudgetCache, shared: Redis, org: str, key: str) -> None:
    """In the nonce, the timestamp, the figures or the authentication tag."""
    whole = sealed(org, a_copy(org))

    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1
        shared.set(key, bytes(changed))
        assert real.get(org, Ledger().budgets)[0].spent_nano_usd == 1


def test_an_entry_reveals_nothing(real: RedisBudgetCache, shared: Redis, org: str) -> None:
    """Neither the organisation nor its figures, in key or value."""
    real.get(org, Ledger().budgets)

    for name in shared.scan_iter("callgate:budgets:*"):
        whole = name + shared.dump(name)
        assert org.encode() not in whole
        assert b"nano_usd" not in whole


def test_a_login_without_a_password_shares_no_entries(services: DevServers, org: str) -> None:
    """Without a secret each process has its own key."""
    ledger = Ledger()
    caches = [RedisBudgetCache(services.broker_url, login=None, ttl_s=60) for _ in range(2)]

    seen = [cache.get(org, ledger.budgets)[0].spent_nano_usd for cache in [*caches, *caches]]

    for cache in caches:
        cache.close()
    assert seen == [1, 2, 1, 2]


def test_processes_of_one_login_share_entries(services: DevServers, org: str) -> None:
    ledger = Ledger()
    caches = [RedisBudgetCache(services.broker_url, login=LOGIN, ttl_s=60) for _ in range(2)]

    seen = [cache.get(org, ledger.budgets)[0].spent_nano_usd for cache in caches]

    for cache in caches:
        cache.close()
    assert seen == [1, 1]
