"""A client that was used before a fork: every process gets its own answers, and none hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.broker.app import CALL_QUEUE, EXPRESS_QUEUE
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.sums import CostFilter
from tests.support.celery_worker import client_of
from tests.support.forking_pipeline import CHILDREN, ROUNDS, WAYS, org
from tests.support.ledger_under_test import LedgerUnderTest, a_submission
from tests.support.valkey import Valkey, until

CHECKOUT = Path(__file__).parents[2]
TIMEOUT_S = 120
ANSWERED = 1
"""Calls of an organisation that are there before the fork."""


@pytest.fixture
def environ(postgres_engine: Engine, valkey: Valkey) -> dict[str, str]:
    """What a process needs to be a client of an empty ledger."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    return {**os.environ, "CALLGATE_DATABASE_URL": url, "CALLGATE_BROKER_URL": valkey.url}


def calls_of(engine: Engine, n: int) -> int:
    """How many calls the ledger has of the organisation of this number."""
    with engine.connect() as connection:
        count = text("SELECT count(*) FROM llm_call WHERE org_id = :org")
        return int(connection.scalar(count, {"org": org(n)}) or 0)


@pytest.mark.parametrize("way", WAYS)
def test_every_process_gets_its_own_answers(
    environ: dict[str, str], postgres_engine: Engine, valkey: Valkey, way: str
) -> None:
    """Budgets, states, results, from the ledger, the cache and Celery's result; and each call is published once."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "tests.support.forking_pipeline", way],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for n in range(1, CHILDREN + 1):
        assert calls_of(postgres_engine, n) == ANSWERED + ROUNDS
    published = [
        message
        for queue in (CALL_QUEUE, EXPRESS_QUEUE)
        for message in valkey.client.lrange(queue, 0, -1)
    ]
    everything = sum(calls_of(postgres_engine, n) for n in range(CHILDREN + 1))
    assert len(published) == len(set(published)) == everything


def test_prefork_children_get_their_own_answers(
    environ: dict[str, str], postgres_engine: Engine, valkey: Valkey, tmp_path: Path
) -> None:
    """A handler of `worker_init` reads a budget and submits; then the children's tasks use the same client."""
    pool = ("worker", "-P", "prefork", "-c", "4", "-Q", "pipeline", "-l", "WARNING")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "celery", "-A", "tests.support.prefork_app", *pool, *quiet],
            cwd=CHECKOUT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with client_of(valkey) as app:
            for n in range(1, CHILDREN + 1):
                app.send_task("pipeline.check", (n,), queue="pipeline")
        until(
            lambda: (
                worker.poll() is not None
                or "Error" in log.read_text()
                or sum(calls_of(postgres_engine, n) for n in range(1, CHILDREN + 1))
                == CHILDREN * (ANSWERED + ROUNDS + 1)
            ),
            TIMEOUT_S,
        )
        assert worker.poll() is None, log.read_text()
        assert "Error" not in log.read_text(), log.read_text()
    finally:
        worker.terminate()
        worker.wait(TIMEOUT_S)


FORK_UNDER_LOCKS = """
import os, sys, threading, warnings
from callgate import Client
from callgate.domain.ledger import CallKey
from tests.support.forking_pipeline import Organisations, a_request, limit, org

client = Client.from_env()
organisations = Organisations(client)
session, queue = client._session, client.queue
locks = [session._own().watchdog._changed, queue._lock(), client.celery_app.pool._resource.mutex,
         client.celery_app.producer_pool._resource.mutex, client._budget_cache._redis().connection_pool._lock,
         client._submit._estimator._loading()]
held, may_end = threading.Event(), threading.Event()

def hold():
    for lock in locks:
        assert lock.acquire(timeout=10)
    held.set()
    may_end.wait()
    for lock in reversed(locks):
        lock.release()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
pid = os.fork()
if pid == 0:
    client._submit._estimator._counters.clear()
    organisations.check(1)
    client.close()
    os._exit(7)
may_end.set()
holder.join()
_, status = os.waitpid(pid, 0)
organisations.check(2)
client.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_lock_held_at_the_fork_blocks_no_child(environ: dict[str, str]) -> None:
    """Locks of deadlines, queue, broker pools, cache and tokenizer; the child can close the client."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", FORK_UNDER_LOCKS],
        cwd=CHECKOUT,
        env=environ | {"CALLGATE_CACHE_URL": environ["CALLGATE_BROKER_URL"]},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert done.returncode == 7, done.stdout + done.stderr


INSPECTION_COMMANDS: dict[str, Callable[[LedgerUnderTest, CallKey], Any]] = {
    "submit": lambda ledger, key: ledger.submit(a_submission("other")),
    "read": lambda ledger, key: list(ledger.ledger.read([key])),
    "budgets": lambda ledger, key: ledger.operations.budgets("acme"),
    "costs": lambda ledger, key: ledger.operations.costs(CostFilter(org_id="acme")),
    "due": lambda ledger, key: ledger.ledger.take_due(limit=1),
    "deliver": lambda ledger, key: ledger.deliver(key.call_id),
}
"""Of each kind one, and one whose answer may be empty."""


@pytest.mark.parametrize("name", INSPECTION_COMMANDS)
def test_an_answer_to_another_query_is_an_error(
    ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is not returned. The connections are discarded, and then the query is answered."""
    key = ledger.queued()
    foreign = a_foreign_answer(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(PostgresSession, "rows", lambda self, sql, parameters: foreign)
        with pytest.raises(LedgerUnavailable, match="answer to another question"):
            INSPECTION_COMMANDS[name](ledger, key)
    INSPECTION_COMMANDS[name](ledger, key)


def a_foreign_answer(ledger: LedgerUnderTest) -> list[Any]:
    """The answer to the query of another process."""
    session = ledger.ledger._session  # type: ignore[attr-defined]
    rows: list[Any] = []
    ask = session.rows

    def listen(sql: str, parameters: Mapping[str, Any]) -> list[Any]:
        rows.extend(ask(sql, parameters))
        return rows

    session.rows = listen
    try:
        ledger.queued("of others", org_id="others")
    finally:
        del session.rows
    return rows


def test_a_truncated_answer_is_an_error(
    ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer has at least one row."""
    key = ledger.queued()
    monkeypatch.setattr(PostgresSession, "rows", lambda self, sql, parameters: [])

    with pytest.raises(LedgerUnavailable):
        list(ledger.ledger.read([key]))
