"""The bounds of columns: what the tables were made with is what the code says, and every text has one."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from sqlalchemy import CheckConstraint, Engine, LargeBinary, Text, text

from callgate.adapters.postgres.tables import metadata
from callgate.domain import bounds
from callgate.domain.budgets import scopes_of

DEFINED = """SELECT c.relname AS table, k.conname AS name, pg_get_constraintdef(k.oid) AS condition
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
 WHERE c.relnamespace = 'public'::regnamespace AND k.conname LIKE 'ck\\_%\\_is\\_bounded'"""
ENUMERATED = {
    *("llm_call.state", "llm_call.wait_reason", "submission.outcome", "undelivered_call.org_id"),
    *("ai_call_log.status", "ai_call_log.kind", "budget.window"),
    *(
        "flow_rule.measure",
        "flow_limit.measure",
        "flow_limit.source",
        "flow_concurrency.calls_of",
        "ai_call_log.health",
        "llm_call.lane",
        "alert_delivery.channel",
        "alert_delivery.event",
        "redrive.state",
        "redrive.cause",
        "redrive_call.state",
        "redrive_call.outcome",
    ),
}
"""One of a few words, or copied from a column that has a bound."""


ERRORS = ['{"code": "a"}', '{"code": 7}', '{"code": ""}', "{}", "[]", "no JSON", ""]


@pytest.mark.parametrize("error", ERRORS)
def test_the_code_of_an_error_is_the_same_in_sql(postgres_engine: Engine, error: str) -> None:
    with postgres_engine.connect() as connection:
        code = connection.scalar(text("SELECT callgate_error_code_v1(:error)"), {"error": error})

    assert code == bounds.error_code(error)


def test_the_scopes_of_a_call_are_the_same_in_sql(postgres_engine: Engine) -> None:
    with postgres_engine.connect() as connection:
        scopes = connection.scalar(text("SELECT callgate_scopes_v1('extraction')"))

    assert tuple(scopes) == scopes_of("extraction")


def plain(condition: str) -> str:
    """A condition without what only one of the two ways to write it has."""
    condition = condition.upper().replace("BETWEEN 0 AND", ">= 0 <=")
    return " ".join(re.findall(r"CHAR_LENGTH|OCTET_LENGTH|CARDINALITY|[<>=]+|\d+", condition))


def test_the_tables_hold_the_bounds_of_the_code(postgres_engine: Engine) -> None:
    """Migrations are frozen text, so a bound that is changed in one place only is found here."""
    with postgres_engine.connect() as connection:
        rows = connection.execute(text(DEFINED)).all()
    defined = {(row.table, row.name): plain(row.condition) for row in rows}
    said = {
        (table.name, f"ck_{table.name}_{str(c.name).removeprefix(f'ck_{table.name}_')}"): plain(
            str(c.sqltext)
        )
        for table in metadata.sorted_tables
        for c in table.constraints
        if isinstance(c, CheckConstraint) and str(c.name).endswith("_is_bounded")
    }

    of_partitions = {name for name in defined if name[0].startswith("ai_call_log_")}
    assert {name: defined[name] for name in defined.keys() - of_partitions} == said
    assert len(of_partitions) >= len([name for name in said if name[0] == "ai_call_log"])


OF_SUMS = {"attempt_delta", "quarter_sum", "day_sum", "dropped_month"}


def test_every_text_has_a_bound() -> None:
    """But for sums and deltas, whose words come from rows that had them."""
    unbounded = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Text | LargeBinary)
        if not any(str(c.name).endswith(f"{column.name}_is_bounded") for c in table.constraints)
    }

    assert {name for name in unbounded if name.partition(".")[0] not in OF_SUMS} == (
        ENUMERATED | {"operator_action.login"}
    )


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        ("store_submissions_v1", {bounds.ROWS_MAX, bounds.LINKS_PER_CALL_MAX}),
        ("read_v2", {bounds.ROWS_MAX}),
        ("end_v1", {bounds.ROWS_MAX, bounds.ERROR_MAX_BYTES}),
        ("calls_v2", {bounds.ROWS_MAX, bounds.LISTED_MAX}),
        ("call_ids_v1", {bounds.ROWS_MAX}),
        ("attempts_of_call_v1", {bounds.ROWS_MAX}),
        ("submissions_of_call_v1", {bounds.ROWS_MAX, bounds.LISTED_MAX}),
        ("dead_groups_v1", {bounds.ROWS_MAX}),
        ("plan_redrive_v1", {bounds.LISTED_MAX}),
    ],
)
def test_functions_of_clients_hold_the_bounds_of_the_code(function: str, numbers: set[int]) -> None:
    """As numbers, for SQL knows none of our names."""
    folder = resources.files("callgate.adapters.postgres").joinpath("sql", "functions")
    source = folder.joinpath(f"{function}.sql").read_text("utf-8")

    assert numbers <= {int(number) for number in re.findall(r"\b\d+\b", source)}


def test_views_have_the_columns_of_read() -> None:
    """Two lists of the same columns: one for those who read bodies, one for those who do not."""
    folder = resources.files("callgate.adapters.postgres").joinpath("sql", "functions")
    read, views = (
        re.search(r"RETURNS TABLE \(.*?\)\n", folder.joinpath(name).read_text("utf-8"), re.DOTALL)
        for name in ("read_v2.sql", "views_v1.sql")
    )

    assert read is not None
    assert views is not None
    assert read.group() == views.group()
