"""Sums of attempts by quarter hour and day, the deltas that are not in them yet, and what was proven of them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Date,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from callgate.adapters.postgres.tables.columns import NOW, TIME, metadata

DIMENSIONS = ("org_id", "project", "call_type", "provider", "model", "tier", "kind", "outcome")
MEASURES = (
    "attempts",
    "calls",
    "posted_nano_usd",
    "unknown_bills",
    "unknown_nano_usd",
    "without_tokens",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "latency_ms",
    "timed",
    "collapsed",
    "saved_nano_usd",
)
"""In the order of the columns."""
_MEANINGS: Mapping[str, str] = {
    "calls": "attempts that are the first of their call",
    "unknown_bills": "attempts whose bill is unknown",
    "unknown_nano_usd": "what those have posted",
    "without_tokens": "attempts that posted an amount, and whose tokens are not known",
    "timed": "attempts whose latency is known",
    "collapsed": "submissions that were answered without a call of their own",
    "saved_nano_usd": "what those would have cost, as it was known when they were answered",
}


def _dimensions() -> list[Column[str]]:
    nullable = ("project", "tier")
    return [Column(name, Text, nullable=name in nullable) for name in DIMENSIONS]


def _measures(meanings: Mapping[str, str] = {}) -> list[Column[int]]:
    return [
        Column(
            name,
            BigInteger,
            nullable=False,
            server_default=text("0"),
            comment=meanings.get(name),
        )
        for name in MEASURES
    ]


attempt_delta = Table(
    "attempt_delta",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("starts_at", TIME, nullable=False, comment="the quarter hour"),
    *_dimensions(),
    Column("budget_ids", ARRAY(BigInteger), nullable=False),
    *_measures(_MEANINGS),
    PrimaryKeyConstraint("id"),
    comment="what sums lack yet; appended by who changes a row, taken by fold_sums_v1",
)

quarter_sum = Table(
    "quarter_sum",
    metadata,
    Column("starts_at", TIME, nullable=False, comment="the quarter hour"),
    *_dimensions(),
    *_measures(),
    UniqueConstraint(
        "starts_at", *DIMENSIONS, name="uq_quarter_sum_key", postgresql_nulls_not_distinct=True
    ),
    comment="sums of posted attempts and collapsed submissions by quarter hour",
    postgresql_with={"fillfactor": "80"},
)
Index("ix_quarter_sum_org", quarter_sum.c.org_id, quarter_sum.c.starts_at)

day_sum = Table(
    "day_sum",
    metadata,
    Column("day", Date, nullable=False, comment="in UTC"),
    *_dimensions(),
    *_measures(),
    UniqueConstraint("day", *DIMENSIONS, name="uq_day_sum_key", postgresql_nulls_not_distinct=True),
    comment="the same by day",
    postgresql_with={"fillfactor": "80"},
)
Index("ix_day_sum_org", day_sum.c.org_id, day_sum.c.day)

budget_sum = Table(
    "budget_sum",
    metadata,
    Column("budget_id", BigInteger, nullable=False),
    Column("day", Date, nullable=False, comment="in UTC, of the attempts' started_at"),
    Column("posted_nano_usd", BigInteger, nullable=False),
    PrimaryKeyConstraint("budget_id", "day"),
    comment="what attempts have posted to budgets",
    postgresql_with={"fillfactor": "80"},
)
Index("ix_budget_sum_day", budget_sum.c.day)

sum_seal = Table(
    "sum_seal",
    metadata,
    Column("starts_at", TIME, nullable=False, comment="the quarter hour"),
    Column("attempts", BigInteger, nullable=False),
    Column("posted_nano_usd", BigInteger, nullable=False),
    Column("proven_at", TIME, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("starts_at"),
    comment="quarter hours whose sums were proven by their rows; a later delta removes the seal",
)

sum_gap = Table(
    "sum_gap",
    metadata,
    Column("day", Date, nullable=False),
    PrimaryKeyConstraint("day"),
    comment="days of before the sums were kept, which correct_sums_v1 has yet to sum up",
)

dropped_month = Table(
    "dropped_month",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("partition_name", Text, nullable=False, comment="the partition that was dropped"),
    Column("ends_at", TIME, nullable=False, comment="its attempts are older than this"),
    Column("attempts", BigInteger, nullable=False),
    Column("dropped_at", TIME, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("id"),
    comment="partitions of ai_call_log that retention has dropped; their sums stay",
)
