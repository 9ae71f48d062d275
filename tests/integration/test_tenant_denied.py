"""Statements that Postgres refuses to a client's login."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tables import metadata
from tests.support.hostile_client import (
    DENIED,
    all_rows,
    attacker,
    ledger,
    owner,
    session,
    sqlstate_of,
    url,
)

__all__ = ["attacker", "ledger", "owner", "session", "url"]


# Writing, and everything else.

FORBIDDEN = {
    **{
        f"{verb} {table}": statement.format(table=table)
        for table in metadata.tables
        for verb, statement in {
            "insert into": "INSERT INTO {table} DEFAULT VALUES",
            "delete from": "DELETE FROM {table}",
            "truncate": "TRUNCATE {table}",
            "copy into": "COPY {table} FROM STDIN",
        }.items()
    },
    "update a state": "UPDATE llm_call SET state = 'succeeded'",
    "update a hold": "UPDATE ai_call_log SET hold_nano_usd = 0",
    "update a limit": "UPDATE budget SET limit_nano_usd = 0",
    "update a link": "UPDATE submission SET link = NULL",
    "lock rows for update": "SELECT 1 FROM llm_call FOR UPDATE",
    "lock rows for share": "SELECT 1 FROM llm_call FOR SHARE",
    "lock budgets": "SELECT 1 FROM budget FOR KEY SHARE",
    "lock a table": "BEGIN; LOCK TABLE budget IN ACCESS SHARE MODE",
    "keep months from being made": "BEGIN; LOCK TABLE dropped_month IN ACCESS SHARE MODE",
    "keep sums from being changed": "BEGIN; LOCK TABLE sum_gap IN ACCESS SHARE MODE",
    "read sums": "SELECT * FROM day_sum",
    "read deltas": "SELECT * FROM attempt_delta",
    "fold": "SELECT callgate_fold_sums_v1(1)",
    "prove": "SELECT callgate_prove_sums_v1(now(), now())",
    "read unprocessable_messages": "SELECT * FROM unprocessable_message",
    "read dead letters": "SELECT * FROM dead_letter",
    "read the grants": "SELECT * FROM tenant_login",
    "grant itself": "INSERT INTO tenant_login SELECT session_user, 'theirs'",
    "grant itself by the function": "SELECT callgate_grant_tenant_v1(session_user::text, 'theirs')",
    "become a worker": f"SET ROLE {WORKER}",
    "become the dashboard": f"SET ROLE {DASHBOARD}",
    "become the owner": "SET ROLE callgate",
    "become somebody else": "SET SESSION AUTHORIZATION callgate",
    "call others into its role": f"GRANT {CLIENT} TO {WORKER}",
    "reserve": "SELECT callgate_reserve_v2(" + ", ".join(["'{}'"] * 18) + ")",
    "record": "SELECT callgate_record_v1('{}','{}','{}','{}','{}')",
    "settle": "SELECT callgate_settle_v2(" + ", ".join(["'{}'"] * 22) + ")",
    "due": "SELECT callgate_take_due_v2(1000, 'w', 0)",
    "sweep": "SELECT callgate_take_lost_messages_v2(1000, now())",
    "ask a breaker": "SELECT callgate_breaker_admission_v1('openai', 'm', '', 'theirs')",
    "tell a breaker": "SELECT callgate_note_health_v2('{}', '{}', '{}', '{}', '{}')",
    "open a breaker": "SELECT callgate_set_breaker_v2('openai', 'm', '', '', true, NULL, 'me', 'malice')",
    "forget the breakers": "SELECT callgate_forget_breakers_v1(9)",
    "list who waits": "SELECT callgate_waiting_orgs_v1(1)",
    "list the breakers": "SELECT * FROM callgate_breakers_v2()",
    "pause others": "SELECT callgate_pause_v1('', '', '', 'theirs', false, false, 'me', 'malice')",
    "resume itself": "SELECT callgate_resume_v1('', '', '', 'mine', true, NULL, 'me', 'malice')",
    "ask who is frozen": "SELECT callgate_refuse_frozen_v1('theirs')",
    "list the pauses": "SELECT * FROM callgate_pauses_v1()",
    "ask why others are paused": "SELECT callgate_pause_of_v1('theirs', 't', 'openai', 'm')",
    "release who waits": "SELECT callgate_free_provider_waiters_v1()",
    "take links": "SELECT callgate_links_v1('', NULL, NULL, 1, 1, 1, 1)",
    "deliver": "SELECT callgate_deliver_v1('{}', '{}', '{}')",
    "put a call off": "SELECT callgate_defer_call_v1(gen_random_uuid(), 1, '')",
    "tell of a call": "SELECT callgate_schedule_delivery_v1(gen_random_uuid(), 1, 'theirs', '0')",
    "forget whom to tell": "SELECT callgate_reschedule_delivery_v1(gen_random_uuid(), 1)",
    "set a budget": "SELECT callgate_set_budget_v1('mine', 'org', 'day', 1000000, 'UTC')",
    "change a budget": "SELECT callgate_change_budget_v1('mine', 'org', 'day', 9, NULL, 1, 'me', 'malice')",
    "remove a budget": "SELECT callgate_remove_budget_v1('mine', 'org', 'day', 1, 'me', 'malice')",
    "list the budgets of others": "SELECT callgate_budget_names_v1(NULL, NULL, NULL, NULL, 9)",
    "look at a budget of others": "SELECT callgate_budget_states_v1(ARRAY[1], 4, 9, 9)",
    "ask what others do": "SELECT callgate_affected_v1('', '', '', 'theirs', 9)",
    "roll budgets": "SELECT callgate_roll_budgets_v1(ARRAY['theirs'], ARRAY['org'])",
    "end rests": "SELECT callgate_clear_due_at_v1('{}', '{}')",
    "create a table": "CREATE TABLE public.mine (x int)",
    "create a function": "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a schema": "CREATE SCHEMA mine",
    "replace a function": (
        "CREATE OR REPLACE FUNCTION callgate_tenant_orgs_v1() RETURNS text[] LANGUAGE sql AS 'SELECT NULL::text[]'"
    ),
    "index a table": "CREATE INDEX ON llm_call (org_id)",
    "drop a policy": "DROP POLICY all_orgs ON llm_call",
    "create a policy": f"CREATE POLICY mine ON llm_call TO {CLIENT} USING (true)",
    "disable row security": "ALTER TABLE llm_call DISABLE ROW LEVEL SECURITY",
    "a trigger": "CREATE TRIGGER t BEFORE INSERT ON llm_call EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "run a program": "COPY (SELECT 1) TO PROGRAM 'id'",
    "read a file": "SELECT pg_read_file('postgresql.conf')",
    "import a file": "SELECT lo_import('/etc/passwd')",
    "replication mode": "SET session_replication_role = replica",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_everything_but_its_own_is_refused(
    attacker: Connection, owner: PostgresSession, what: str
) -> None:
    """Postgres says no, and nothing has changed."""
    before = all_rows(owner)

    state = sqlstate_of(attacker, FORBIDDEN[what])

    assert state == DENIED
    assert all_rows(owner) == before


def test_a_statement_of_others_is_not_ended(attacker: Connection, owner: PostgresSession) -> None:
    """It may neither cancel nor terminate what other logins run."""
    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'callgate'"
    owner.rows("SELECT 1", {})

    assert sqlstate_of(attacker, ends) == DENIED
