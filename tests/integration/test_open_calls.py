"""Counting the open calls of an organisation that has many: exact where it matters, and cheap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.limits import Declaration
from callgate.domain.open_calls import OPEN_CALLS_MAX, OpenCalls
from tests.contract.flow_steps import WORKER
from tests.support.ledger_under_test import ORG, LedgerUnderTest, a_submission, open_postgres

pytestmark = pytest.mark.usefixtures("nothing_is_known")
FEW = 2_000
"""So many calls are counted for each statement; larger counts are kept."""
BOUND = 2_500
FILL = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt, wait_reason)
SELECT gen_random_uuid(), 1, :org, sha256('x'), 'waiting', now() + interval '1 hour', 'extraction', 'openai', 'm', 1,
       0, 'retry'
  FROM generate_series(1, :count)"""
END = """UPDATE llm_call SET state = 'rejected', wait_reason = NULL, end_reason = 'x', error = '{}', due_at = NULL
 WHERE ctid IN (SELECT ctid FROM llm_call WHERE org_id = :org AND state IN ('queued', 'waiting') LIMIT :count)"""
READ = "SELECT idx_tup_read AS count FROM pg_stat_user_indexes WHERE indexrelname = 'ix_llm_call_open_org'"


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """One connection."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        yield session


@pytest.fixture
def ledger(session: PostgresSession) -> LedgerUnderTest:
    """A ledger in which an organisation may have `BOUND` open calls."""
    ledger = open_postgres(session)
    ledger.flow.publish(WORKER, Declaration(open_calls_max=BOUND))
    return ledger


def change(engine: Engine, statement: str, count: int) -> None:
    """Make or end many calls at once."""
    with engine.begin() as connection:
        changed = connection.execute(text(statement), {"org": ORG, "count": count})
        assert changed.rowcount == count


def submitted(ledger: LedgerUnderTest, name: str, count: int) -> list[Submitted]:
    """Submit new calls."""
    return ledger.submit(*[a_submission(f"{name} {n}") for n in range(count)])


def created(answers: Sequence[Submitted]) -> list[CallKey]:
    """The calls that were created."""
    return [answer.key for answer in answers if answer.outcome is SubmitOutcome.CREATED]


def test_the_bound_is_kept_while_calls_come_and_go(
    postgres_engine: Engine, ledger: LedgerUnderTest
) -> None:
    """None too many are let in, and soon all that fit."""
    free = BOUND
    for round_no, ended in enumerate((1_000, 1_200, 300)):
        change(postgres_engine, FILL, free - 150)
        answers = submitted(ledger, f"a {round_no}", 100) + submitted(ledger, f"b {round_no}", 100)
        assert len(created(answers)) == 150
        assert {a.open_calls for a in answers if a.open_calls} == {OpenCalls(BOUND, BOUND)}
        change(postgres_engine, END, free := ended)
        # So long the count of a full organisation stands.
        ledger.age(BOUND / 100_000)
    assert len(created(submitted(ledger, "last", 350))) == 300


def test_few_entries_are_read_for_many_calls(
    postgres_engine: Engine, ledger: LedgerUnderTest, session: PostgresSession
) -> None:
    """Once they are counted, one statement in `FEW` new calls counts them again."""
    ledger.flow.publish(WORKER, Declaration())
    change(postgres_engine, FILL, 10 * FEW)
    ledger.queued("counts")
    before = _read(session)
    for n in range(50):
        ledger.queued(f"{n}")

    assert _read(session) - before < 5_000


def test_counting_waits_for_no_other_session(
    postgres_engine: Engine, ledger: LedgerUnderTest
) -> None:
    """A session that has counted, and is slow to commit, holds nothing that others need."""
    change(postgres_engine, FILL, FEW)
    ledger.queued("counted")
    with postgres_engine.begin() as slow:
        slow.execute(text("DELETE FROM flow_open"))
        slow.execute(text("INSERT INTO flow_open VALUES (:org, now(), 1)"), {"org": ORG})
        change(postgres_engine, FILL, BOUND - FEW - 1)
        (answer,) = ledger.submit(a_submission("more"))

    assert answer.open_calls == OpenCalls(BOUND, BOUND)


def test_counts_of_the_past_are_removed(postgres_engine: Engine, ledger: LedgerUnderTest) -> None:
    """One is kept of an organisation that has many open calls, none of the others."""
    change(postgres_engine, FILL, BOUND)
    for n in range(3):
        ledger.queued(f"{n}")
        ledger.age(1)
    assert _kept(postgres_engine) == 1
    change(postgres_engine, END, FEW)
    ledger.queued("few")

    assert _kept(postgres_engine) == 0


def test_the_default_bound_is_the_same_in_sql(
    ledger: LedgerUnderTest, session: PostgresSession
) -> None:
    """It holds while no worker has published another."""
    source = "SELECT prosrc AS text FROM pg_proc WHERE proname = 'callgate_store_submissions_v1'"

    assert f", {OPEN_CALLS_MAX});" in session.rows(source, {})[0].text


def _read(session: PostgresSession) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ, {})[0][0])


def _kept(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM flow_open")).scalar_one())
