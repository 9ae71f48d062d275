"""Claims that meet: no more calls of an organisation run than may, whatever budgets they have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey, WaitReason
from callgate.domain.concurrency import CallsOf, ConcurrencyRule
from callgate.domain.ledger import Refused, Reserved, ReserveOutcome
from callgate.domain.limits import Declaration
from tests.contract.flow_steps import WORKER, prove, succeeds
from tests.integration.test_breaker_races import deadlocks
from tests.support.ledger_under_test import LedgerUnderTest, a_reserve, open_postgres
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_is_known")
ORGS = ("few", "fewer")
TYPES = ("slow", "quick")
MOST = 3
ROUNDS = 15
WAITING = 20_000
FILL = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt, wait_reason, is_in_line)
SELECT gen_random_uuid(), 1, :org, sha256('x'), 'waiting', now() + interval '1 hour', 'slow', 'openai', 'gpt-4o-mini',
       1, 0, 'concurrency_limited', true
  FROM generate_series(1, :count)"""
CLAIM = """SELECT * FROM callgate_reserve_v2(
    CAST(:ids AS uuid[]), '{1,1,1}', '{reserve,reserve,reserve}', '{1,1,1}', '{60,60,60}', CAST(:worker_ids AS text[]),
    '{"","",""}', '{NULL,NULL,NULL}', '{f,f,f}', '{NULL,NULL,NULL}', '{"","",""}', '{60,60,60}', '{NULL,NULL,NULL}',
    '{0,0,0}', '{NULL,NULL,NULL}', '{1,1,1}', '{0,0,0}', '{NULL,NULL,NULL}')"""
LOCKED = """SELECT count(*) FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND query LIKE '%%callgate_reserve%%'"""
READ = """SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'llm_call'"""


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """Few connections."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=3)) as session:
        yield session


@pytest.fixture
def ledger(session: PostgresSession) -> LedgerUnderTest:
    """Organisations whose call types have no budget in common, and of which few calls may run."""
    ledger = open_postgres(session)
    for org in ORGS:
        for call_type in TYPES:
            ledger.set_budget(1_000_000, org_id=org, scope=f"call_type:{call_type}")
    rules = tuple(ConcurrencyRule(CallsOf.ORGANISATION, org, MOST) for org in ORGS)
    ledger.flow.publish(WORKER, Declaration(concurrency=rules))
    return ledger


def claimed(ledger: LedgerUnderTest, outcomes: list[ReserveOutcome], *keys: CallKey) -> Thread:
    """Claim calls in another thread."""
    claims = [a_reserve(key, 1) for key in keys]
    thread = Thread(target=lambda: outcomes.extend(ledger.reserve(*claims)))
    thread.start()
    return thread


def test_a_claim_counts_what_another_one_has_just_started(
    postgres_engine: Engine, ledger: LedgerUnderTest
) -> None:
    """It waits for it, although they have neither a budget nor a breaker in common."""
    keys = [ledger.queued(f"{n}", org_id=ORGS[0], call_type=TYPES[0], model="a") for n in (1, 2, 3)]
    last = ledger.queued("last", org_id=ORGS[0], call_type=TYPES[1], model="b")
    other = ledger.queued("other", org_id=ORGS[1], call_type=TYPES[1], model="c")
    outcomes: list[ReserveOutcome] = []
    with postgres_engine.begin() as connection:
        claims = {"ids": [key.call_id for key in keys], "worker_ids": list("abc")}
        connection.execute(text(CLAIM), claims)
        thread = claimed(ledger, outcomes, last)
        until(lambda: waiting_sessions(postgres_engine) > 0)
        # Another organisation does not wait.
        assert isinstance(ledger.reserve(a_reserve(other, 1))[0], Reserved)
    thread.join(30)

    assert [type(outcome) for outcome in outcomes] == [Refused]
    assert ledger.view(last).wait_reason is WaitReason.CONCURRENCY_LIMITED


def test_claims_of_two_organisations_meet(postgres_engine: Engine, ledger: LedgerUnderTest) -> None:
    """In opposite orders: neither too many nor too few are let through, without a deadlock."""
    before = deadlocks(postgres_engine)
    for n in range(ROUNDS):
        sides = [
            [
                ledger.queued(f"{n} {call_type} {m}", org_id=org, call_type=call_type, model="m")
                for org in ORGS[::step]
                for m in range(MOST)
            ]
            for call_type, step in zip(TYPES, (1, -1), strict=True)
        ]
        prove(ledger, "m")
        outcomes: list[ReserveOutcome] = []
        for thread in [claimed(ledger, outcomes, *keys) for keys in sides]:
            thread.join(60)

        kinds = Counter(type(outcome) for outcome in outcomes)
        assert kinds == {Reserved: 2 * MOST, Refused: 2 * MOST}
        for outcome in outcomes:
            if isinstance(outcome, Reserved):
                succeeds(ledger, outcome.ref)
        with postgres_engine.begin() as connection:
            connection.execute(text("DELETE FROM llm_call WHERE state = 'waiting'"))
    assert deadlocks(postgres_engine) == before


def test_few_entries_are_read_for_a_long_line(
    postgres_engine: Engine, ledger: LedgerUnderTest, session: PostgresSession
) -> None:
    """Claims, settlements and the due query read some of it, however many wait."""
    ledger.due()
    with postgres_engine.begin() as connection:
        connection.execute(text(FILL), {"org": ORGS[0], "count": WAITING})
        connection.execute(text(FILL), {"org": "no number", "count": 10})
    before, ended = _read(session), 0
    for _ in range(5):
        due = ledger.due()
        for outcome in ledger.reserve(*(a_reserve(d.key, 1) for d in due)):
            if isinstance(outcome, Reserved):
                succeeds(ledger, outcome.ref)
                ended += 1

    assert ended >= MOST
    assert _read(session) - before < WAITING / 4


def waiting_sessions(engine: Engine) -> int:
    """How many claims wait for another session."""
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(LOCKED).scalar_one())


def _read(session: PostgresSession) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ, {})[0][0])
