"""A ledger with an old log: real attempts, moved into the past by their ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from callgate.adapters.memory.ledger import uuid7
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.sums import PostgresSums
from callgate.adapters.postgres.tables import PARTITION_NAME
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.retention import UNKNOWN_DAYS, ArchivedMonth
from callgate.services.sums import SumsService
from tests.support.ledger_under_test import LedgerUnderTest, open_postgres

MOVE_CALL = """
UPDATE llm_call SET created_at = created_at - :by * interval '1 s'
 WHERE call_id = :call_id AND generation = :generation
"""
MOVE_ATTEMPT = """
UPDATE ai_call_log SET attempt_id = :new_id, started_at = started_at - :by * interval '1 s',
       finished_at = finished_at - :by * interval '1 s', posted_at = posted_at - :by * interval '1 s'
 WHERE attempt_id = :attempt_id
"""
PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'ai_call_log'::regclass ORDER BY 1
"""


def month(back: int) -> datetime:
    """The middle of the month that began `back` months before this one."""
    today = datetime.now(UTC)
    months = today.year * 12 + today.month - 1 - back
    return datetime(months // 12, months % 12 + 1, 15, 12, tzinfo=UTC)


def partition_of(at: datetime) -> str:
    """The name of a month's partition."""
    return f"ai_call_log_{at:%Y_%m}"


class PartitionedLedger:
    """A Postgres ledger, and statements that tests run beside it."""

    def __init__(
        self, under_test: LedgerUnderTest, engine: Engine, session: PostgresSession
    ) -> None:
        self.under_test = under_test
        self._session = session
        self._engine = engine

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run one statement."""
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def partitions(self) -> list[str]:
        """The partitions there are, by name."""
        return [name for (name,) in self.sql(PARTITIONS)]

    def make(self, back: int, months: int) -> int:
        """Make partitions from some months back on; return how many were made."""
        statement = "SELECT made FROM callgate_make_partitions_v1(:at, :months)"
        return int(self.sql(statement, at=month(back), months=months)[0][0])

    def move(self, ref: AttemptRef, back: int) -> AttemptRef:
        """Make an attempt, and the call it belongs to, look months older."""
        at = month(back)
        by = (datetime.now(UTC) - at).total_seconds()
        self.move_call(ref.key, by)
        return self.move_attempt(ref, at, by)

    def move_call(self, key: CallKey, by: float) -> None:
        """Make a call look older."""
        self.sql(MOVE_CALL, by=by, call_id=key.call_id, generation=key.generation)

    def move_attempt(self, ref: AttemptRef, at: datetime, by: float | None = None) -> AttemptRef:
        """Give an attempt the id it would have had at another time."""
        new_id = uuid7(at)
        by = (datetime.now(UTC) - at).total_seconds() if by is None else by
        self.sql(MOVE_ATTEMPT, new_id=new_id, by=by, attempt_id=ref.attempt_id)
        self.sql(
            "UPDATE llm_call SET attempt_id = :new_id WHERE attempt_id = :old_id",
            new_id=new_id,
            old_id=ref.attempt_id,
        )
        for day in {
            datetime.now(UTC).date(),
            (datetime.now(UTC) - timedelta(days=1)).date(),
            at.date(),
        }:
            self.sql("SELECT callgate_correct_sums_v1(:day)", day=day)
        return AttemptRef(ref.key, new_id)

    def prove(self) -> None:
        """Do what a worker does for the sums."""
        sums = SumsService(PostgresSums(self._session))
        sums.fold()
        sums.prove()

    def archive_month(
        self, keep_months: int, unknown_days: int = UNKNOWN_DAYS
    ) -> ArchivedMonth | None:
        """Archive a month once the sums are proven."""
        self.prove()
        return self.under_test.retention.archive_month(keep_months, unknown_days)

    def partition_with(self, attempt_id: UUID) -> str:
        """The partition that holds an attempt."""
        ((name,),) = self.sql(
            "SELECT tableoid::regclass::text FROM ai_call_log WHERE attempt_id = :attempt_id",
            attempt_id=attempt_id,
        )
        return str(name)


@contextmanager
def partitioned_ledger(engine: Engine, url: str) -> Iterator[PartitionedLedger]:
    """An empty ledger with the partitions that a migration makes, and no others at its end."""
    with closing(PostgresSession(url)) as session:
        ledger = PartitionedLedger(open_postgres(session), engine, session)
        before = set(ledger.partitions())
        try:
            yield ledger
        finally:
            for name in set(ledger.partitions()) - before:
                assert PARTITION_NAME.fullmatch(name)
                ledger.sql(f"DROP TABLE {name}")
