# ruff: noqa: S608 - every statement is written in this file
"""
A hostile client fills columns, and submits links that are large, many or undeliverable.

It has its own database login and calls the ledger's functions without callgate's code. Its organisation is "mine".
Other organisations' calls run meanwhile. Attacks that would take minutes are written into the tables by the owner.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.call_search import CALLS
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import END
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.submissions import SUBMIT
from callgate.domain import bounds
from callgate.domain.calls import CallKey, CallState
from callgate.domain.errors import RowRefused
from callgate.domain.identity import call_id
from callgate.domain.ledger import NewSubmission, Requeue, SubmitOutcome
from callgate.domain.reports import EndReason
from tests.support.deployment import Deployment, Process, until
from tests.support.ledger_under_test import a_submission
from tests.support.logins import a_client

pytestmark = pytest.mark.long
MINE = "mine"
TAKEN = "a-key-that-is-no-queue"
THEIRS = "their-links"
IN_TIME_S = 20.0
"""Limit for what takes one second without an attack, on a busy machine."""
MANY_CALLS = """WITH made AS (
    INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model, input_token_bound,
                          request, error, end_reason)
    SELECT gen_random_uuid(), 1, :org, sha256(n::text::bytea), 'rejected', 't', 'sim', 'sim-1', 1, 'x', '{}',
           'cancelled'
      FROM generate_series(1, :count) n RETURNING call_id, org_id
), linked AS (
    INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, link)
    SELECT gen_random_uuid(), org_id, call_id, 1, 'created', :link FROM made
)
INSERT INTO undelivered_call SELECT call_id, 1, org_id, now() - interval '1 hour' FROM made"""
MANY_LINKS = """INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, link)
SELECT gen_random_uuid(), :org, :call_id, :generation, 'joined', :link FROM generate_series(1, :count)"""
TELL = "SELECT callgate_schedule_delivery_v1(:call_id, :generation, :org, '0')"


@pytest.fixture
def mine(deployment: Deployment) -> Iterator[PostgresSession]:
    """The hostile client's own login."""
    with (
        closing(PostgresSession(deployment.services.database_url)) as owner,
        a_client(owner, MINE) as url,
        closing(PostgresSession(url, timeout_s=20, pool_size=1)) as session,
    ):
        yield session
        deployment.end_open_calls()
        deployment.rows("TRUNCATE undelivered_call")


@pytest.fixture
def broker(deployment: Deployment) -> Iterator[Redis]:
    """The broker, with one key that is not a queue."""
    with Redis.from_url(deployment.services.broker_url) as broker:
        broker.set(TAKEN, "something else")
        broker.delete(THEIRS)
        yield broker
        broker.delete(TAKEN, THEIRS)


def a_link(queue: str, padding: int = 0) -> str:
    """A link to a queue as the ledger stores it, for success and failure, with padding."""
    link: dict[str, Any] = {
        "task": "note",
        "args": ["x" * padding],
        "kwargs": {},
        "options": {"queue": queue},
    }
    link |= {"subtask_type": None, "immutable": False}
    return json.dumps({"link": {**link, "args": []}, "link_error": link})


def arguments(*rows: NewSubmission) -> dict[str, Any]:
    """The function's arguments, as the client's adapter passes them."""
    columns = {
        "submission_ids": "submission_id",
        "org_ids": "org_id",
        "call_ids": "call_id",
        "input_hashes": "input_hash",
        "call_types": "call_type",
        "providers": "provider",
        "models": "model",
        "input_token_bounds": "input_token_bound",
        "requests": "request",
        "idempotency_keys": "idempotency_key",
        "links": "link",
        "forces": "force",
        "inherits": "inherit_links",
        "priorities": "priority",
        "traceparents": "traceparent",
        "start_within_s": "start_within_s",
    }
    return {name: [getattr(row, column) for row in rows] for name, column in columns.items()}


def my_submission(content: str = "q", **changes: Any) -> NewSubmission:
    """A submission of the hostile organisation."""
    return a_submission(content, org_id=MINE, **changes)


def my_rejected(deployment: Deployment, session: PostgresSession, content: str) -> CallKey:
    """A call without cost: submitted and cancelled."""
    (answer,) = PostgresLedger(session).submit([my_submission(content)])
    error = json.dumps({"code": "cancelled", "message": "mine"})
    given = {"call_ids": [answer.key.call_id], "generations": [answer.key.generation]}
    session.answers(END, {**given, "error": error, "states": ["queued"]})
    return answer.key


def others_live(deployment: Deployment, broker: Redis) -> None:
    """Assert that another tenant's call ends and is delivered, and that its lost call is recovered, in time."""
    org = deployment.org()
    due = a_submission("due", org_id=org, provider="sim", model="sim-1", call_type="answer")
    due = replace(due, request=deployment.request(org).model_dump_json().encode())
    ledger = deployment.client.ledger
    (queued,) = ledger.submit([due])
    ledger.reserve([Requeue(queued.key, '{"code": "later"}')])
    delivered = a_submission("delivered", org_id=org, link=a_link(THEIRS))
    began_at = time.monotonic()
    (answer,) = ledger.submit([delivered])
    deployment.client.operations.end([answer.key], code=EndReason.CANCELLED, message="by a test")
    handle = deployment.client.submit(deployment.request(org))

    handle.get(timeout=IN_TIME_S)
    until(lambda: int(broker.llen(THEIRS)) == 1, IN_TIME_S)
    until(lambda: _attempts(deployment, queued.key) == 1, IN_TIME_S)
    assert time.monotonic() - began_at < IN_TIME_S
    until(lambda: deployment.open_calls() == 0, IN_TIME_S)


def _attempts(deployment: Deployment, key: CallKey) -> int:
    (view,) = deployment.client.ledger.read([key])
    assert view is not None
    return view.attempt


OVERSIZED: dict[str, dict[str, Any]] = {
    "two links": {"link": "x" * (bounds.LINK_MAX_BYTES + 1)},
    "a call type": {"call_type": "x" * 10_000},
    "a provider": {"provider": "x" * 10_000},
    "a model": {"model": "x" * 10_000},
    "a bound of tokens": {"input_token_bound": 2**31 - 1},
    "a negative bound": {"input_token_bound": -1},
    "an idempotency key": {"idempotency_key": "x" * 2_000},
    "a request": {"request": b"x" * (bounds.REQUEST_MAX_BYTES + 1)},
    "a hash": {"input_hash": b"x" * 5_000},
}


@pytest.mark.parametrize("what", OVERSIZED)
def test_sql_functions_refuse_oversized_values(
    deployment: Deployment, mine: PostgresSession, what: str
) -> None:
    """Nothing of them is stored. A neighbour in the same batch is stored, for ordinary client functions."""
    large = [replace(my_submission(f"{what} {n}"), **OVERSIZED[what]) for n in range(2)]
    large = [replace(new, call_id=call_id(MINE, new.input_hash)) for new in large]
    fine = my_submission(f"beside {what}")

    with pytest.raises(RowRefused):
        mine.answers(SUBMIT, arguments(*large))
    outcomes = [a.outcome for a in PostgresLedger(mine).submit([large[0], fine])]

    assert outcomes == [SubmitOutcome.UNSTORABLE, SubmitOutcome.CREATED]
    stored = "SELECT count(*) FROM llm_call WHERE call_id = :id"
    assert deployment.rows(stored, id=large[0].call_id)[0][0] == 0


def test_client_functions_refuse_more_than_a_thousand_rows(mine: PostgresSession) -> None:
    """They refuse before they read the first row."""
    ids = "array_fill(gen_random_uuid(), ARRAY[1001])"
    numbers = "array_fill(1, ARRAY[1001])"
    texts = "array_fill(''::text, ARRAY[1001])"
    others = (
        f"'{{}}', {texts}, {texts}, {texts}, {numbers}, '{{}}', {texts}, {texts}, '{{}}', '{{}}'"
    )
    statements = (
        f"SELECT * FROM callgate_submit_v2({ids}, {texts}, {ids}, {others}, '{{}}', '{{}}')",
        f"SELECT * FROM callgate_read_v2({ids}, {numbers}, {ids}, 1000, true, 1)",
        f"SELECT * FROM callgate_end_v1({ids}, {numbers}, '{{}}', '{{}}')",
        f"SELECT * FROM callgate_calls_v1(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, {ids}, 1)",
        f"SELECT * FROM callgate_dead_groups_v1(NULL, NULL, NULL, NULL, NULL, {ids})",
    )
    for statement in statements:
        with pytest.raises(RowRefused, match="at most 1000"):
            mine.answers(statement, {})
    long = json.dumps("x" * bounds.ERROR_MAX_BYTES)
    with pytest.raises(RowRefused, match="at most 16384 bytes"):
        mine.answers(END, {"call_ids": [], "generations": [], "error": long, "states": []})
    filters = (
        *("org_id", "state", "reason", "wait_reason", "end_reason", "call_type", "provider"),
        *("model", "error_fingerprint", "trace_id", "call_ids", "generation", "since", "until"),
        *("tier", "kind", "outcome", "at", "at_call_id", "at_generation", "is_newer"),
        *("looked_max", "says_end", "limit"),
    )
    assert mine.answers(CALLS, dict.fromkeys(filters)) is not None


def test_a_call_has_at_most_ten_thousand_links(
    deployment: Deployment, mine: PostgresSession
) -> None:
    """Sixty thousand are refused at once. Joining the call without a link still works."""
    ledger = PostgresLedger(mine)
    (answer,) = ledger.submit([my_submission("joined", link=a_link(TAKEN))])
    fill = {"org": MINE, "call_id": answer.key.call_id, "generation": 1, "link": a_link(TAKEN)}
    deployment.rows(f"{MANY_LINKS} RETURNING 1", **fill, count=bounds.LINKS_PER_CALL_MAX - 2)

    submissions = [my_submission("joined", link=a_link(TAKEN)) for _ in range(3)]
    outcomes = [a.outcome for a in ledger.submit([*submissions, my_submission("joined")])]

    joined = SubmitOutcome.JOINED
    assert sorted(outcomes) == [joined, joined, *[SubmitOutcome.UNSTORABLE] * 2]
    deployment.client.operations.end([answer.key], code=EndReason.CANCELLED, message="by a test")


def test_links_delay_no_other_organisation(
    deployment: Deployment,
    worker: Callable[..., Process],
    mine: PostgresSession,
    broker: Redis,
) -> None:
    key = my_rejected(deployment, mine, "heavy")
    row = {"org": MINE, "call_id": key.call_id, "generation": key.generation}
    heavy = a_link(TAKEN, bounds.LINK_MAX_BYTES - 500)
    deployment.rows(f"{MANY_LINKS} RETURNING 1", **row, link=heavy, count=1_500)
    deployment.rows(TELL, **row)
    deployment.rows(f"{MANY_CALLS} RETURNING 1", org=MINE, link=a_link(TAKEN), count=1_000)
    held = my_rejected(deployment, mine, "held")
    engine = create_engine(mine.url, poolclass=NullPool)
    with engine.connect() as attacker:
        attacker.exec_driver_sql(SUBMIT, arguments(my_submission("held", link=a_link(TAKEN))))
        process = worker()

        others_live(deployment, broker)

        assert process.is_alive()
        attacker.commit()
    engine.dispose()

    tried = "SELECT count(*) FROM submission WHERE org_id = :org AND tries > 0"
    until(lambda: deployment.rows(tried, org=MINE)[0][0] > 0, IN_TIME_S)
    until(lambda: "links.not_delivered" in process.output(), IN_TIME_S)
    said = [line for line in process.output().splitlines() if "links.not_delivered" in line]
    assert len(said) < 5, "a cause is logged once a minute, with a count"
    assert "note" not in "".join(said)
    assert deployment.client.ledger.read([held])


def test_recovery_and_settlement_load_no_links(
    deployment: Deployment, mine: PostgresSession
) -> None:
    """The size of links does not burden these statements."""
    key = my_rejected(deployment, mine, "light")
    row = {"org": MINE, "call_id": key.call_id, "generation": key.generation}
    deployment.rows(f"{MANY_LINKS} RETURNING 1", **row, link=a_link(TAKEN, 60_000), count=200)
    deployment.rows(TELL, **row)
    ledger = deployment.client.ledger

    due = ledger.take_due(limit=100)
    links = ledger.links(limit=200)

    assert due.items == ()
    assert 1 <= len(links) <= 50
    assert sum(len(link.link) for link in links) <= 4 * 2**20
    assert {link.state for link in links} == {CallState.REJECTED}
