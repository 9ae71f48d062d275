"""What a hostile client writes: submissions of its own organisation, and nothing else."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import Bodies, CallState
from callgate.domain.errors import ConfigurationError, OrganisationFrozen
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By, CallFilter, EndReason
from tests.support.hostile_client import (
    DENIED,
    THEIR_PROMPT,
    all_rows,
    attacker,
    kill,
    ledger,
    owner,
    session,
    sqlstate_of,
    their,
    url,
)
from tests.support.ledger_under_test import (
    LINK,
    LedgerUnderTest,
    a_submission,
)
from tests.support.logins import a_client, a_login, owner_url
from tests.support.partitions import month, partition_of

__all__ = ["attacker", "ledger", "owner", "session", "url"]


# The functions that write.


def test_it_submits_for_nobody_else(
    session: PostgresSession, owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """One foreign row, and nothing of the batch is stored."""
    before = all_rows(owner)
    batch = [a_submission("a", org_id="mine"), their("b"), a_submission("c", org_id="mine")]

    with pytest.raises(ConfigurationError, match="may not act for organisation theirs"):
        PostgresLedger(session).submit(batch)

    assert all_rows(owner) == before


def call_of_theirs() -> dict[str, Any]:
    """Whose id anybody can compute who guesses the prompt."""
    there = their(THEIR_PROMPT)
    return {"call_id": there.call_id, "input_hash": there.input_hash}


def no_call_of_theirs() -> dict[str, Any]:
    """The same for a prompt nobody asked."""
    absent = their("what nobody asked")
    return {"call_id": absent.call_id, "input_hash": absent.input_hash}


@pytest.mark.parametrize("options", [{}, {"link": LINK}, {"force": True, "inherit_links": True}])
@pytest.mark.parametrize("key", [None, f"key of {THEIR_PROMPT}"])
def test_it_neither_joins_nor_detects_a_call_of_others(
    session: PostgresSession,
    owner: PostgresSession,
    ledger: LedgerUnderTest,
    options: dict[str, Any],
    key: str | None,
) -> None:
    """Its own organisation with the id of their call: the same answer whether they have that call or not."""
    before = all_rows(owner)
    client = PostgresLedger(session)

    def ask(identity: dict[str, Any]) -> tuple[SubmitOutcome, int, CallState]:
        forged = replace(
            a_submission("x", org_id="mine", idempotency_key=key), **identity, **options
        )
        (answer,) = client.submit([forged])
        return answer.outcome, answer.key.generation, answer.state

    present, absent = ask(call_of_theirs()), ask(no_call_of_theirs())

    assert present == absent == (SubmitOutcome.UNSTORABLE, 0, CallState.REJECTED)
    assert all_rows(owner) == before


def test_idempotency_keys_of_others_do_not_answer(owner: PostgresSession) -> None:
    """A key they used is as good as new."""
    new = a_submission("q", org_id="third", idempotency_key=f"key of {THEIR_PROMPT}")

    with a_client(owner, "third") as url, closing(PostgresSession(url)) as session:
        (answer,) = PostgresLedger(session).submit([new])

    assert answer.outcome is SubmitOutcome.CREATED


def test_a_submission_of_others_is_not_replaced(
    session: PostgresSession, owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Its id does not open it: what they want to be told stays as it is."""
    (submission_id,) = (
        row.submission_id
        for row in owner.rows(
            "SELECT submission_id FROM submission WHERE org_id = 'theirs' LIMIT 1", {}
        )
    )
    before = all_rows(owner)
    forged = a_submission("q", org_id="mine", submission_id=submission_id, link="{}")

    (answer,) = PostgresLedger(session).submit([forged])

    assert answer.outcome is SubmitOutcome.UNSTORABLE
    assert all_rows(owner) == before


ARRAYS = {
    "no organisation": "{}",
    "a null": "{NULL}",
    "two dimensions": "{{mine}}",
    "counted from zero": "[0:1]={mine,theirs}",
    "counted from two": "[2:2]={mine}",
}


@pytest.mark.parametrize("shape", ARRAYS)
def test_odd_arrays_are_refused(
    attacker: Connection, owner: PostgresSession, ledger: LedgerUnderTest, shape: str
) -> None:
    """The organisation that is checked is the one that is stored."""
    row = their("q")
    before = all_rows(owner)

    state = sqlstate_of(
        attacker,
        f"SELECT callgate_submit_v2(ARRAY['{uuid4()}']::uuid[], '{ARRAYS[shape]}', ARRAY['{row.call_id}']::uuid[],"
        f" ARRAY['\\x{row.input_hash.hex()}'::bytea], '{{t}}', '{{p}}', '{{m}}', '{{1}}', ARRAY['x'::bytea],"
        " '{NULL}', '{NULL}', '{f}', '{f}', '{1}', '{NULL}')",
    )

    assert state in (DENIED, "22000")
    assert all_rows(owner) == before


def test_it_cancels_nothing_of_others_and_waits_for_nothing(
    session: PostgresSession, owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Their calls are neither ended nor locked: one that is locked, and one that is not there, answer alike."""
    keys = [view.key for view in ledger.operations.calls(CallFilter(org_id="theirs"), limit=1_000)]
    before = all_rows(owner)

    with owner.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT 1 FROM llm_call FOR UPDATE")
        ended = PostgresOperations(session).end(keys, code=EndReason.CANCELLED, message="")
        connection.exec_driver_sql("ROLLBACK")

    assert len(keys) == 204
    assert ended == []
    assert all_rows(owner) == before


def test_it_discards_no_dead_letter_of_its_own(
    owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """What is dead is an operator's to decide; what waits is its own to cancel."""
    ledger.operations.set_budget("fourth", ORG_SCOPE, Window.DAY, 500)
    dead, queued = ledger.submit(*(a_submission(c, org_id="fourth") for c in "ab"))
    kill(ledger, dead.key)
    keys = [dead.key, queued.key]

    with a_client(owner, "fourth") as url, closing(PostgresSession(url)) as session:
        ended = PostgresOperations(session).end(keys, code=EndReason.CANCELLED, message="")

    assert ended == [queued.key]
    assert ledger.view(dead.key).state is CallState.DEAD


def test_a_reason_is_json(attacker: Connection) -> None:
    """A client that lists calls reads it."""
    assert sqlstate_of(attacker, "SELECT callgate_end_v1('{}', '{}', 'no json', '{}')") == "22P02"
    assert sqlstate_of(attacker, "SELECT callgate_end_v1('{}', '{}', '{}', '{}')") == ""


def test_no_lock_that_anybody_may_hold_stops_the_upkeep(
    attacker: Connection, owner: PostgresSession
) -> None:
    """Advisory locks ask for no privilege, so nothing of ours waits for one, or takes one that is held for a reason."""
    attacker.exec_driver_sql("SELECT pg_advisory_lock(hashtext('callgate_partitions'))")

    later = month(-5)
    (partitions,) = owner.rows(
        "SELECT * FROM callgate_make_partitions_v1(%(at)s, 1)", {"at": later}
    )
    owner.rows(f"DROP TABLE {partition_of(later)}", {})
    users = owner.rows(
        "SELECT proname FROM pg_proc WHERE proname LIKE 'callgate%%' AND prosrc LIKE '%%advisory%%'",
        {},
    )

    assert partitions.made == 1
    assert users == []


def test_what_a_client_may_execute_is_little(attacker: Connection) -> None:
    """Nothing of callgate's is left to PUBLIC, what runs with the owner's rights finds no object of a caller's."""
    functions = attacker.exec_driver_sql(
        "SELECT proname, has_function_privilege(oid, 'EXECUTE'), prosecdef, proconfig,"
        " has_function_privilege('pg_monitor', oid, 'EXECUTE')"
        "  FROM pg_proc WHERE proname LIKE 'callgate%%'"
    ).all()

    mine = {name for name, may, *_ in functions if may}
    assert mine == {
        "callgate_submit_v1", "callgate_submit_v2", "callgate_end_v1", "callgate_tenant_orgs_v1", "callgate_read_v1",
        "callgate_read_v2",
        "callgate_calls_v1", "callgate_calls_v2", "callgate_dead_groups_v1", "callgate_costs_v1", "callgate_costs_v2",
        "callgate_budgets_v1",
        "callgate_views_v1", "callgate_call_ids_v1", "callgate_attempts_of_call_v1", "callgate_submissions_of_call_v1",
        "callgate_link_failures_v1", "callgate_spending_v1", "callgate_schema_v1",
    }  # fmt: skip
    assert [name for name, _, _, _, is_public in functions if is_public] == []
    for name, _, is_definer, settings, _ in functions:
        told = {"search_path=public, pg_temp", "client_min_messages=notice"}
        assert not is_definer or told <= set(settings), name
    assert len(functions) > 10


def test_a_client_that_is_also_the_dashboard_reads_no_more_bodies(
    owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """What the dashboard shows of everybody is no answer to what a client asks for, for that may be prompts."""
    (theirs,) = [
        view.key
        for view in PostgresOperations(owner).calls(CallFilter(org_id="theirs"), limit=1000)
        if view.state is CallState.SUCCEEDED
    ]
    with (
        a_login(owner_url(owner), CLIENT, DASHBOARD) as url,
        closing(PostgresSession(url)) as session,
    ):
        assert list(PostgresLedger(session).read([theirs], Bodies.BOTH)) == [None]
        assert PostgresOperations(session).calls(CallFilter(), limit=1000) == []
        assert PostgresOperations(session).snapshot().budgets


def test_it_learns_nothing_of_the_freeze_of_others(
    session: PostgresSession, owner: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Its refusal is the same as without one; its own freeze has a type, and a reason."""
    operations, by = PostgresOperations(owner), By("ann", "unpaid since May")
    keys = [PauseKey(org_id=org_id, is_freeze=True) for org_id in ("theirs", "mine")]
    for key in keys:
        operations.pause(key, by=by)
    try:
        with pytest.raises(
            ConfigurationError, match="may not act for organisation theirs"
        ) as refused:
            PostgresLedger(session).submit([their("b")])
        with pytest.raises(OrganisationFrozen, match="unpaid since May"):
            PostgresLedger(session).submit([a_submission("a", org_id="mine")])
    finally:
        for key in keys:
            operations.resume(key, by=by)

    assert "unpaid" not in str(refused.value)
