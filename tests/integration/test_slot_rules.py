"""The rule of slots in SQL is the one in Python, and what it reads does not grow with calls that wait."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.slots import OrgWork, ahead_max, gives_way, released
from tests.support.ledger_under_test import DAY_S, ORG, a_reserve, open_postgres
from tests.support.many_calls import WAIT, WORK

pytestmark = pytest.mark.usefixtures("nothing_is_known")
CASES = 400
WAITING = 3_000
GIVES_WAY = """SELECT callgate_gives_way_v1(
    %(slots)s, 1, %(running)s::int[], %(queued)s::int[], %(asking)s::int[]) AS it"""
AHEAD = "SELECT callgate_ahead_max_v1(%(slots)s::int) AS it"
RELEASED = """SELECT callgate_released_v1('o0', %(slots)s, array_agg(w.org_id), array_agg(w.running),
                            array_agg(w.asking)) AS it
  FROM callgate_org_work_v1(now() - interval '60 s') w"""
READ_AT_ALL = (
    "SELECT sum(idx_tup_read) AS count FROM pg_stat_user_indexes WHERE relname = 'llm_call'"
)
READ = "SELECT idx_tup_read AS count FROM pg_stat_user_indexes WHERE indexrelname = 'ix_llm_call_open_org'"


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """One connection of the owner."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        yield session


def some_work(rng: random.Random, most: int = 12) -> OrgWork:
    """What an organisation may have."""
    queued = rng.randint(0, most)
    return OrgWork(rng.randint(0, most), queued, rng.randint(0, queued))


def test_both_rules_say_who_gives_way(session: PostgresSession) -> None:
    """In many cases, of which a good part gives way."""
    rng, said = random.Random(7), []  # noqa: S311 - cases, not secrets
    for _ in range(CASES):
        slots = rng.randint(1, 24)
        work = [some_work(rng) for _ in range(rng.randint(1, 5))]
        arrays = {
            "running": [org.running for org in work],
            "queued": [org.queued for org in work],
            "asking": [org.asking for org in work],
        }
        (row,) = session.rows(GIVES_WAY, {"slots": slots, **arrays})
        assert row.it is gives_way(slots, work[0], work[1:]), (slots, work)
        said.append(row.it)

    assert 0.05 < sum(said) / len(said) < 0.95


def test_both_rules_say_how_many_are_queued(
    session: PostgresSession, postgres_engine: Engine
) -> None:
    """Counted from rows; calls that wait for money ask for no slot."""
    rng, leases = random.Random(7), open_postgres(session).leases  # noqa: S311
    for slots in (None, 0, 1, 64, 65, 1_000, 5_000):
        (row,) = session.rows(AHEAD, {"slots": slots})
        assert row.it == ahead_max(slots)
    for _ in range(40):
        slots = rng.randint(1, 150)
        leases.renew("host:1:w", DAY_S, slots)
        work = [some_work(rng, 60) for _ in range(rng.randint(1, 4))]
        with postgres_engine.begin() as connection:
            connection.execute(text("DELETE FROM llm_call"))
            for n, org in enumerate(work):
                poor = org.queued - org.asking
                kinds = (
                    ("running", 0, org.running),
                    ("queued", 0, org.asking),
                    ("queued", 5, poor),
                )
                for state, hold, count in kinds:
                    calls = {"org": f"o{n}", "state": state, "hold": hold or None, "count": count}
                    connection.execute(text(WORK), calls)
        others = [org for org in work[1:] if org.running or org.queued]
        (found,) = session.rows(RELEASED, {"slots": slots})
        assert found.it == released(slots, work[0], others), (slots, work)


def test_a_claim_reads_no_call_that_waits(
    session: PostgresSession, postgres_engine: Engine
) -> None:
    """Of its own organisation or of another, in plans that were made when nothing waited."""
    ledger = open_postgres(session)
    ledger.leases.renew("host:1:w", DAY_S, 10)
    for name in ("first", "second"):
        ledger.queued(f"rival of {name}", org_id="bolt")
        ledger.reserve(a_reserve(ledger.queued(name), 1))
    with postgres_engine.begin() as connection:
        for org in (ORG, "bolt", "nova"):
            row = {"org": org, "state": "waiting", "hold": None, "count": WAITING}
            connection.execute(text(WORK), row)
    key = ledger.queued("third")
    before = _read(session)

    ledger.reserve(a_reserve(key, 1))

    assert _read(session) - before < WAITING / 10


@pytest.mark.parametrize("wait", ["rate_limited", "concurrency_limited"])
def test_a_claim_reads_no_call_that_waits_for_its_provider_or_a_place(
    session: PostgresSession, postgres_engine: Engine, wait: str
) -> None:
    """It asks whether there is one for each kind of queued calls, however many there are."""
    ledger = open_postgres(session)
    ledger.leases.renew("host:1:w", DAY_S, 10)
    for name in ("first", "second"):
        ledger.queued(f"rival of {name}", org_id="bolt")
        ledger.reserve(a_reserve(ledger.queued(name), 1))
    with postgres_engine.begin() as connection:
        for org in (ORG, "bolt"):
            connection.execute(text(WAIT), {"org": org, "wait": wait, "count": WAITING})
    key = ledger.queued("third")
    before = _read_at_all(session)

    ledger.reserve(a_reserve(key, 1))

    assert _read_at_all(session) - before < WAITING / 4


def _read_at_all(session: PostgresSession) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ_AT_ALL, {})[0][0])


def _read(session: PostgresSession) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ, {})[0][0])
