"""What operators ask of the ledger in Postgres: reports, budgets, cancelling, the audit's snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from callgate.adapters.postgres.alerts import PostgresAlertOperations
from callgate.adapters.postgres.audit import read_snapshot
from callgate.adapters.postgres.budget_reports import (
    PostgresBudgetReports,
    bill_of,
    figures_of,
    unknown_zone,
)
from callgate.adapters.postgres.call_search import PostgresCallSearch, filter_parameters
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.sums import PostgresSums
from callgate.adapters.postgres.worker_lines import PostgresWorkers
from callgate.domain.bounds import (
    OPERATOR_TEXT_CHARS_MAX,
    QUEUE_CHARS_MAX,
    ROWS_MAX,
    UNPROCESSABLE_MAX_BYTES,
    one_line,
    reason_json,
)
from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import CallKey
from callgate.domain.concurrency import CallsOf
from callgate.domain.delivery import LinkFailure
from callgate.domain.errors import ChangedMeanwhile, UnknownTimeZone
from callgate.domain.limits import Measure, Source
from callgate.domain.pauses import Pause, PauseKey, already_paused, paused_again
from callgate.domain.reports import (
    Ahead,
    BreakerLine,
    By,
    CallFilter,
    ConcurrencyLine,
    DeadGroup,
    EndReason,
    LimitLine,
    LimitPublisher,
    OperatorAction,
    RecentEnd,
    Snapshot,
    SpendingLine,
    UnprocessableMessage,
)
from callgate.domain.unknown import (
    HandOutcome,
    SettleByHand,
    SettledByHand,
    UnknownBill,
    UnknownDay,
    UnknownFilter,
)

BUDGETS = "SELECT * FROM callgate_budgets_v1(%(org_id)s)"
SET_BUDGET = """SELECT * FROM callgate_set_budget_v1(
    %(org_id)s, %(scope)s, %(window)s, %(limit)s::bigint, %(timezone)s)"""
END = "SELECT * FROM callgate_end_v1(%(call_ids)s::uuid[], %(generations)s::int[], %(error)s, %(states)s::text[])"
DEAD_GROUPS = """SELECT * FROM callgate_dead_groups_v1(
    %(org_id)s, %(call_type)s, %(provider)s, %(model)s, %(error_fingerprint)s, %(call_ids)s::uuid[])"""
LINK_FAILURES = (
    "SELECT * FROM callgate_link_failures_v1(%(call_id)s::uuid, %(generation)s, %(limit)s)"
)
SPENDING = "SELECT * FROM callgate_spending_v1(%(org_ids)s::text[], %(days)s, %(attempts_max)s)"
BREAKERS = "SELECT * FROM callgate_breakers_v2()"
LIMITS = "SELECT * FROM callgate_limits_v1()"
CONCURRENCY = "SELECT * FROM callgate_concurrency_v1()"
AHEAD = "SELECT * FROM callgate_ahead_v1(%(call_id)s, %(generation)s)"
RECENT_ENDS = "SELECT * FROM callgate_recent_ends_v1(%(orgs_max)s, %(calls_max)s, %(age_s)s)"
LIMIT_PUBLISHERS = "SELECT * FROM callgate_limit_publishers_v1()"
SET_BREAKER = """SELECT * FROM callgate_set_breaker_v2(
    %(provider)s, %(model)s, %(credential)s, %(org_id)s, %(is_open)s, %(seen_at)s, %(operator)s, %(reason)s)"""
PAUSES = "SELECT * FROM callgate_pauses_v1()"
PAUSE = """SELECT * FROM callgate_pause_v1(
    %(provider)s, %(model)s, %(call_type)s, %(org_id)s, %(is_freeze)s, %(is_new)s, %(operator)s, %(reason)s)"""
RESUME = """SELECT * FROM callgate_resume_v1(
    %(provider)s, %(model)s, %(call_type)s, %(org_id)s, %(is_freeze)s, %(seen_at)s, %(operator)s,
    %(reason)s) AS was_paused"""
UNKNOWN_BILLS = """SELECT * FROM callgate_unknown_v1(
    %(org_id)s, %(provider)s, %(model)s, %(since)s, %(before)s, %(with_past)s, %(attempt_ids)s::uuid[], %(limit)s)"""
UNKNOWN_DAYS = """SELECT * FROM callgate_unknown_days_v1(
    %(org_id)s, %(provider)s, %(model)s, %(since)s, %(before)s, %(with_past)s)"""
SETTLE_BY_HAND = """SELECT * FROM callgate_settle_unknown_v1(
    %(attempt_ids)s::uuid[], %(expected_posted)s::bigint[], %(billed)s::bigint[], %(may_exceed_hold)s::boolean[],
    %(operator)s, %(reason)s, %(dry_run)s)"""
ACTIONS = "SELECT * FROM operator_action ORDER BY id DESC LIMIT %(limit)s"
UNPROCESSABLE_MESSAGES = "SELECT * FROM unprocessable_message ORDER BY id DESC LIMIT %(limit)s"
KEEP_UNPROCESSABLE = (
    "INSERT INTO unprocessable_message (queue, reason, raw) VALUES (%(queue)s, %(reason)s, %(raw)s)"
)
ORGS_MAX = 100
"""Organisations that one statement sums up."""


class PostgresOperations(
    PostgresSums,
    PostgresAlertOperations,
    PostgresBudgetReports,
    PostgresCallSearch,
    PostgresWorkers,
):
    """`OperationsPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        PostgresCallSearch.__init__(self, session)

    def set_budget(
        self, org_id: str, scope: str, window: Window, limit_nano_usd: int, timezone: str = "UTC"
    ) -> BudgetFigures:
        """Set a limit; see `OperationsPort.set_budget`."""
        rows = self._session.answers(
            SET_BUDGET,
            {
                "org_id": org_id,
                "scope": scope,
                "window": window.value,
                "limit": limit_nano_usd,
                "timezone": timezone,
            },
        )
        if not rows:
            raise UnknownTimeZone(unknown_zone(timezone))
        return figures_of(rows[0])

    def budgets(self, org_id: str | None = None) -> list[BudgetFigures]:
        """List budgets; see `OperationsPort.budgets`."""
        return [figures_of(row) for row in self._session.answers(BUDGETS, {"org_id": org_id})]

    def dead_groups(self, call_filter: CallFilter) -> list[DeadGroup]:
        """Group dead letters; see `OperationsPort.dead_groups`."""
        rows = self._session.answers(DEAD_GROUPS, filter_parameters(call_filter))
        return [DeadGroup(**row._asdict()) for row in rows]

    def unprocessable_messages(self, *, limit: int) -> list[tuple[datetime, UnprocessableMessage]]:
        """List unprocessable_messages; see `OperationsPort.unprocessable_messages`."""
        rows = self._session.answers(UNPROCESSABLE_MESSAGES, {"limit": limit})
        return [(r.at, UnprocessableMessage(r.queue, r.reason, bytes(r.raw))) for r in rows]

    def end(self, keys: Sequence[CallKey], *, code: EndReason, message: str) -> list[CallKey]:
        """Cancel or discard; see `OperationsPort.end`. Each thousand of them is one transaction."""
        error, states = reason_json(code, message), list(EndReason(code).ends)
        ended: list[CallKey] = []
        for start in range(0, len(keys), ROWS_MAX):
            some = keys[start : start + ROWS_MAX]
            call_ids, generations = [k.call_id for k in some], [k.generation for k in some]
            rows = self._session.answers(
                END,
                {
                    "call_ids": call_ids,
                    "generations": generations,
                    "error": error,
                    "states": states,
                },
            )
            ended += [CallKey(row.call_id, row.generation) for row in rows]
        return ended

    def link_failures(self, key: CallKey, *, limit: int) -> list[LinkFailure]:
        """List links that could not be delivered; see `OperationsPort.link_failures`."""
        rows = self._session.answers(
            LINK_FAILURES,
            {"call_id": key.call_id, "generation": key.generation, "limit": limit},
        )
        return [
            LinkFailure(r.submission_id, r.tries, r.failure, r.try_at, r.given_up_at) for r in rows
        ]

    def keep_unprocessable(self, message: UnprocessableMessage) -> None:
        """Keep an unprocessable message; see `OperationsPort.keep_unprocessable`."""
        self._session.rows(
            KEEP_UNPROCESSABLE,
            {
                "queue": one_line(message.queue, QUEUE_CHARS_MAX),
                "reason": one_line(message.reason, OPERATOR_TEXT_CHARS_MAX),
                "raw": message.raw[:UNPROCESSABLE_MAX_BYTES],
            },
        )

    def spending(
        self, org_ids: Sequence[str], *, days: int, attempts_max: int
    ) -> list[SpendingLine]:
        """Sum what attempts held and cost; see `OperationsPort.spending`."""
        lines: list[SpendingLine] = []
        for start in range(0, len(org_ids), ORGS_MAX):
            some = list(org_ids[start : start + ORGS_MAX])
            rows = self._session.answers(
                SPENDING, {"org_ids": some, "days": days, "attempts_max": attempts_max}
            )
            lines += [_spending_line(row) for row in rows]
        return lines

    def breakers(self) -> list[BreakerLine]:
        """List breakers; see `OperationsPort.breakers`."""
        return [BreakerLine(**row._asdict()) for row in self._session.answers(BREAKERS, {})]

    def limits(self) -> list[LimitLine]:
        """List provider limits; see `OperationsPort.limits`."""
        return [_limit_line(row) for row in self._session.answers(LIMITS, {})]

    def concurrency(self) -> list[ConcurrencyLine]:
        """List how many calls may run at a time; see `OperationsPort.concurrency`."""
        rows = (row._asdict() for row in self._session.answers(CONCURRENCY, {}))
        return [ConcurrencyLine(**{**row, "calls_of": CallsOf(row["calls_of"])}) for row in rows]

    def ahead(self, key: CallKey) -> Ahead | None:
        """Count the calls before one; see `OperationsPort.ahead`."""
        parameters = {"call_id": key.call_id, "generation": key.generation}
        rows = self._session.answers(AHEAD, parameters)
        return Ahead(**rows[0]._asdict()) if rows else None

    def recent_ends(self, *, orgs_max: int, calls_max: int, age_s: float) -> list[RecentEnd]:
        """Count recent ends; see `OperationsPort.recent_ends`."""
        bounds = {"orgs_max": orgs_max, "calls_max": calls_max, "age_s": age_s}
        return [RecentEnd(*row) for row in self._session.answers(RECENT_ENDS, bounds)]

    def limit_publishers(self) -> list[LimitPublisher]:
        """List the workers that published limits; see `OperationsPort.limit_publishers`."""
        rows = self._session.answers(LIMIT_PUBLISHERS, {})
        return [LimitPublisher(**row._asdict()) for row in rows]

    def set_breaker(
        self,
        provider: str,
        model: str,
        credential: str,
        org_id: str = "",
        *,
        is_open: bool,
        seen_at: datetime | None = None,
        by: By,
    ) -> BreakerLine:
        """Open or close a breaker; see `OperationsPort.set_breaker`."""
        rows = self._session.answers(
            SET_BREAKER,
            {
                "provider": provider,
                "model": model,
                "credential": credential,
                "org_id": org_id,
                "is_open": is_open,
                "seen_at": seen_at,
                **asdict(by),
            },
        )
        if not rows:
            raise ChangedMeanwhile("the breaker has changed")
        return BreakerLine(**rows[0]._asdict())

    def pauses(self) -> list[Pause]:
        """List pauses; see `OperationsPort.pauses`."""
        return [_pause(row) for row in self._session.answers(PAUSES, {})]

    def pause(self, key: PauseKey, *, is_new: bool = False, by: By) -> Pause:
        """Keep calls from being sent; see `OperationsPort.pause`."""
        rows = self._session.answers(PAUSE, {**asdict(key), "is_new": is_new, **asdict(by)})
        if not rows:
            raise ChangedMeanwhile(already_paused(key))
        return _pause(rows[0])

    def resume(self, key: PauseKey, *, seen_at: datetime | None = None, by: By) -> bool:
        """End a pause; see `OperationsPort.resume`."""
        rows = self._session.answers(RESUME, {**asdict(key), "seen_at": seen_at, **asdict(by)})
        if not rows:
            # Null stands for no row.
            raise ChangedMeanwhile(paused_again(key))
        return bool(rows[0].was_paused)

    def unknown_bills(self, which: UnknownFilter, *, limit: int) -> list[UnknownBill]:
        """List unknown bills; see `OperationsPort.unknown_bills`."""
        rows = self._session.answers(
            UNKNOWN_BILLS, {**asdict(which), "attempt_ids": None, "limit": limit}
        )
        return [bill_of(row) for row in rows]

    def unknown_days(self, which: UnknownFilter) -> list[UnknownDay]:
        """Sum unknown bills; see `OperationsPort.unknown_days`."""
        rows = self._session.answers(UNKNOWN_DAYS, asdict(which))
        return [UnknownDay(**row._asdict()) for row in rows]

    def bills(self, attempt_ids: Sequence[UUID]) -> dict[UUID, UnknownBill]:
        """Look at attempts; see `OperationsPort.bills`."""
        which = {**asdict(UnknownFilter()), "attempt_ids": list(attempt_ids), "limit": None}
        return {row.attempt_id: bill_of(row) for row in self._session.answers(UNKNOWN_BILLS, which)}

    def settle_by_hand(
        self, batch: Sequence[SettleByHand], *, by: By, dry_run: bool = False
    ) -> list[SettledByHand]:
        """Settle by hand; see `OperationsPort.settle_by_hand`."""
        rows = self._session.answers(
            SETTLE_BY_HAND,
            {
                "attempt_ids": [s.attempt_id for s in batch],
                "expected_posted": [s.seen_posted_nano_usd for s in batch],
                "billed": [s.billed_nano_usd for s in batch],
                "may_exceed_hold": [s.may_exceed_hold for s in batch],
                "operator": by.operator,
                "reason": by.reason,
                "dry_run": dry_run,
            },
        )
        return [
            SettledByHand(s.attempt_id, HandOutcome(row.outcome), row.posted_before, row.posted)
            for s, row in zip(batch, sorted(rows, key=lambda row: row.ord), strict=True)
        ]

    def actions(self, *, limit: int) -> list[OperatorAction]:
        """List what operators changed; see `OperationsPort.actions`."""
        rows = self._session.answers(ACTIONS, {"limit": limit})
        return [
            OperatorAction(
                r.at, By(r.operator, r.reason), r.action, r.org_id, r.subject, dict(r.detail)
            )
            for r in rows
        ]

    def snapshot(self) -> Snapshot:
        """Read the figures and sums; see `OperationsPort.snapshot`."""
        return read_snapshot(self._session)


def _spending_line(row: Any) -> SpendingLine:
    fields = row._asdict()
    sums = {name: int(fields[name]) for name in ("hold_nano_usd", "posted_nano_usd")}
    return SpendingLine(**{**fields, **sums})


def _pause(row: Any) -> Pause:
    key = PauseKey(row.provider, row.model, row.call_type, row.org_id, row.is_freeze)
    return Pause(key, By(row.operator, row.reason), row.at, row.waiting)


def _limit_line(row: Any) -> LimitLine:
    fields = {**row._asdict(), "source": Source(row.source), "measure": Measure(row.measure)}
    return LimitLine(**fields)
