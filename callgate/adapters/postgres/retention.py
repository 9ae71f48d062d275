"""Retention in Postgres: bodies are purged in batches, the attempt log is archived by month."""

from __future__ import annotations

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.retention import UNKNOWN_DAYS, ArchivedMonth, BodyAges, Partitions, Purged

PURGE = """SELECT * FROM callgate_purge_v1(
    %(org_ids)s::text[], %(ages_s)s::float8[], %(default_age_s)s::float8, %(limit)s, %(dry_run)s)"""
WITH_BODIES = (
    """SELECT count(*) AS calls FROM llm_call WHERE org_id = %(org_id)s AND request IS NOT NULL"""
)
OLD_WITH_BODIES = """
SELECT count(*) AS calls FROM llm_call l
 WHERE l.org_id = %(org_id)s AND l.request IS NOT NULL AND l.state IN ('succeeded', 'dead', 'rejected')
   AND l.created_at <= now() - make_interval(secs => %(age_s)s)
   AND NOT EXISTS (
       SELECT 1 FROM ai_call_log a
        WHERE a.call_id = l.call_id AND a.generation = l.generation
          AND a.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
          AND a.posted_at > now() - make_interval(secs => %(age_s)s))
"""
OLD_DEAD = """
WITH age AS (SELECT * FROM unnest(%(org_ids)s::text[], %(ages_s)s::float8[]) AS a(org_id, age_s))
SELECT count(*) AS calls FROM (
    SELECT 1 FROM llm_call l LEFT JOIN age ON age.org_id = l.org_id
     WHERE l.state = 'dead' AND l.generation > 0 AND l.request IS NOT NULL AND l.due_at IS NULL
       AND l.created_at <= now() - make_interval(secs => coalesce(age.age_s, %(default_age_s)s::float8))
       AND NOT EXISTS (
           SELECT 1 FROM undelivered_call u WHERE u.call_id = l.call_id AND u.generation = l.generation)
       AND NOT EXISTS (
           SELECT 1 FROM ai_call_log a
            WHERE a.call_id = l.call_id AND a.generation = l.generation
              AND a.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
              AND a.posted_at > now() - make_interval(secs => coalesce(age.age_s, %(default_age_s)s::float8))
           OFFSET 0)
     LIMIT %(limit)s) old
"""
MAKE_PARTITIONS = "SELECT * FROM callgate_make_partitions_v1(now(), %(months)s)"
FORGET_BREAKERS = "SELECT callgate_forget_breakers_v1(%(limit)s) AS breakers"
ARCHIVE_MONTH = "SELECT * FROM callgate_archive_month_v1(%(keep_months)s, %(unknown_days)s)"


class PostgresRetention:
    """`RetentionPort` over Postgres. Archiving a month reads its rows once."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def purge(self, ages: BodyAges, *, limit: int, dry_run: bool = False) -> Purged:
        """Remove bodies; see `RetentionPort.purge`."""
        (row,) = self._session.answers(PURGE, {**_of(ages), "limit": limit, "dry_run": dry_run})
        return Purged(row.calls, row.unprocessable_messages)

    def calls_with_bodies(self, org_id: str) -> int:
        """Count calls that still have bodies; see `RetentionPort.calls_with_bodies`."""
        (row,) = self._session.answers(WITH_BODIES, {"org_id": org_id})
        return int(row.calls)

    def old_calls_with_bodies(self, org_id: str, age_s: float) -> int:
        """Count old calls that still have bodies; see `RetentionPort.old_calls_with_bodies`."""
        (row,) = self._session.answers(OLD_WITH_BODIES, {"org_id": org_id, "age_s": age_s})
        return int(row.calls)

    def old_dead_letters(self, ages: BodyAges, *, limit: int) -> int:
        """Count old dead calls that still have bodies; see `RetentionPort.old_dead_letters`."""
        (row,) = self._session.answers(OLD_DEAD, {**_of(ages), "limit": limit})
        return int(row.calls)

    def make_partitions(self, *, months: int) -> Partitions:
        """Make partitions ahead; see `RetentionPort.make_partitions`."""
        (row,) = self._session.answers(MAKE_PARTITIONS, {"months": months})
        return Partitions(row.made, row.not_made, row.in_default)

    def forget_breakers(self, *, limit: int) -> int:
        """Delete old breakers; see `RetentionPort.forget_breakers`."""
        (row,) = self._session.answers(FORGET_BREAKERS, {"limit": limit})
        return int(row.breakers)

    def archive_month(
        self, keep_months: int, unknown_days: int = UNKNOWN_DAYS
    ) -> ArchivedMonth | None:
        """Drop a month of the log; see `RetentionPort.archive_month`."""
        rows = self._session.answers(
            ARCHIVE_MONTH, {"keep_months": keep_months, "unknown_days": unknown_days}
        )
        return (
            ArchivedMonth(rows[0].partition_name, rows[0].archived, rows[0].unknown)
            if rows
            else None
        )


def _of(ages: BodyAges) -> dict[str, object]:
    return {
        "org_ids": list(ages.by_org_s),
        "ages_s": list(ages.by_org_s.values()),
        "default_age_s": ages.default_s,
    }
