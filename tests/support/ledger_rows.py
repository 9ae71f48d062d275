"""Age and lock the rows of a ledger under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.calls import CallKey


@contextmanager
def holding_in_memory(ledger: MemoryLedger, key: CallKey) -> Iterator[None]:
    """Keep a call of a memory ledger locked until the end of the block."""
    ledger.tables.locked.add(key)
    try:
        yield
    finally:
        ledger.tables.locked.remove(key)


@contextmanager
def holding(url: str, key: CallKey) -> Iterator[None]:
    """Keep a call of a database locked until the end of the block."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(
            text("SELECT 1 FROM llm_call WHERE call_id = :id AND generation = :n FOR SHARE"),
            {"id": key.call_id, "n": key.generation},
        )
        yield


_AGED_COLUMNS = {
    "llm_call": ("due_at", "created_at", "wait_until", "rank_at", "start_before"),
    "breaker": ("changed_at", "proven_at", "probe_at", "grown_at"),
    "pause": ("at",),
    "flow_limit": ("leveled_at", "largest_at", "granted_at", "changed_at"),
    "flow_share": ("noted_at",),
    "flow_open": ("counted_at",),
    "submission": ("created_at", "delivered_at", "try_at", "given_up_at"),
    "undelivered_call": ("deliver_at",),
    "ai_call_log": ("started_at", "finished_at", "posted_at", "settled_by_hand_at"),
    "unprocessable_message": ("at",),
    "ledger_figures": ("read_at",),
    "redrive": ("created_at", "started_at", "ended_at", "step_at", "free_at"),
    "redrive_call": ("try_at", "changed_at"),
    "alert": ("at", "resolved_at"),
    "alert_delivery": ("queued_at", "next_at", "delivered_at", "dead_at"),
    "alert_watch": ("looked_at",),
    "worker_lease": ("began_at", "stable_since", "renewed_at", "expires_at"),
}


_SUM_UP_AGAIN = """DO $$ BEGIN
    DELETE FROM attempt_delta; DELETE FROM quarter_sum; DELETE FROM day_sum; DELETE FROM budget_sum;
    DELETE FROM sum_seal;
    PERFORM callgate_correct_sums_v1(x.day) FROM (
        SELECT (started_at AT TIME ZONE 'UTC')::date AS day FROM ai_call_log WHERE posted_at IS NOT NULL
        UNION SELECT (created_at AT TIME ZONE 'UTC')::date FROM submission) x;
END $$"""


def age_rows(engine: Engine, seconds: float) -> None:
    """Move all times of a database into the past, except of rows that are locked."""
    shift = "- make_interval(secs => :seconds)"
    with engine.begin() as connection:
        for table, columns in _AGED_COLUMNS.items():
            changes = ", ".join(f"{column} = {column} {shift}" for column in columns)
            # What somebody holds stays as it is.
            free = f"SELECT ctid FROM {table} FOR UPDATE SKIP LOCKED"  # noqa: S608
            connection.execute(
                text(f"UPDATE {table} SET {changes} WHERE ctid = ANY (ARRAY({free}))"),  # noqa: S608
                {"seconds": seconds},
            )
        # One by one, oldest first: neighbouring periods of a budget must not meet on their way.
        for budget_id in connection.scalars(text("SELECT id FROM budget ORDER BY starts_at")).all():
            connection.execute(
                text(
                    f"UPDATE budget SET starts_at = starts_at {shift}, ends_at = ends_at {shift} "  # noqa: S608
                    "WHERE id = :budget_id"
                ),
                {"seconds": seconds, "budget_id": budget_id},
            )
        connection.execute(text(_SUM_UP_AGAIN))
