"""What operators ask of the ledger in Postgres: reports, budgets, cancelling, the audit's snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.bounds import (
    OPERATOR_TEXT_CHARS_MAX,
    QUEUE_CHARS_MAX,
    ROWS_MAX,
    UNPROCESSABLE_BYTES_MAX,
    one_line,
    reason_json,
)
from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import AttemptStatus, CallKey, CallState, CallView
from callgate.domain.concurrency import CallsOf
from callgate.domain.delivery import LinkFailure
from callgate.domain.errors import UnknownTimeZone
from callgate.domain.flow import Measure, Source
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import (
    BreakerLine,
    BudgetDrift,
    By,
    CallFilter,
    ConcurrencyLine,
    CostLine,
    DeadGroup,
    EndReason,
    LimitLine,
    LimitPublisher,
    OperatorAction,
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
CALLS = """SELECT * FROM callgate_calls_v1(
    %(org_id)s, %(state)s, %(wait_reason)s, %(end_reason)s, %(call_type)s, %(provider)s, %(model)s,
    %(error_fingerprint)s, %(call_ids)s::uuid[], %(limit)s)"""
DEAD_GROUPS = """SELECT * FROM callgate_dead_groups_v1(
    %(org_id)s, %(call_type)s, %(provider)s, %(model)s, %(error_fingerprint)s, %(call_ids)s::uuid[])"""
LINK_FAILURES = (
    "SELECT * FROM callgate_link_failures_v1(%(call_id)s::uuid, %(generation)s, %(limit)s)"
)
AUDIT = "SELECT * FROM callgate_audit_v1()"
COSTS = "SELECT * FROM callgate_costs_v1(%(org_id)s)"
SPENDING = "SELECT * FROM callgate_spending_v1(%(org_ids)s::text[], %(days)s, %(attempts_max)s)"
BREAKERS = "SELECT * FROM callgate_breakers_v1()"
LIMITS = "SELECT * FROM callgate_limits_v1()"
CONCURRENCY = "SELECT * FROM callgate_concurrency_v1()"
LIMIT_PUBLISHERS = "SELECT * FROM callgate_limit_publishers_v1()"
SET_BREAKER = """SELECT * FROM callgate_set_breaker_v1(
    %(provider)s, %(model)s, %(credential)s, %(org_id)s, %(is_open)s, %(operator)s, %(reason)s)"""
PAUSES = "SELECT * FROM callgate_pauses_v1()"
PAUSE = """SELECT * FROM callgate_pause_v1(
    %(provider)s, %(model)s, %(call_type)s, %(org_id)s, %(is_freeze)s, %(operator)s, %(reason)s)"""
RESUME = """SELECT * FROM callgate_resume_v1(
    %(provider)s, %(model)s, %(call_type)s, %(org_id)s, %(is_freeze)s, %(operator)s, %(reason)s) AS was_paused"""
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
_DRIFTS = TypeAdapter(tuple[BudgetDrift, ...])


class PostgresOperations:
    """`OperationsPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._ledger = PostgresLedger(session)

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
            raise UnknownTimeZone(
                f"{timezone!r} is no time zone that Postgres knows, such as Europe/Berlin"
            )
        return _figures(rows[0])

    def budgets(self, org_id: str | None = None) -> list[BudgetFigures]:
        """List budgets; see `OperationsPort.budgets`."""
        return [_figures(row) for row in self._session.answers(BUDGETS, {"org_id": org_id})]

    def calls(self, call_filter: CallFilter, *, limit: int) -> list[CallView]:
        """List calls; see `OperationsPort.calls`."""
        rows = self._session.answers(CALLS, {**_filter(call_filter), "limit": limit})
        keys = [CallKey(row.call_id, row.generation) for row in rows]
        return [view for view in self._ledger.read(keys) if view is not None]

    def dead_groups(self, call_filter: CallFilter) -> list[DeadGroup]:
        """Group dead letters; see `OperationsPort.dead_groups`."""
        rows = self._session.answers(DEAD_GROUPS, _filter(call_filter))
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
                "raw": message.raw[:UNPROCESSABLE_BYTES_MAX],
            },
        )

    def costs(self, org_id: str | None = None) -> list[CostLine]:
        """Sum what was used; see `OperationsPort.costs`."""
        rows = self._session.answers(COSTS, {"org_id": org_id})
        return [CostLine(**row._asdict()) for row in rows]

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

    def limit_publishers(self) -> list[LimitPublisher]:
        """List the workers that published limits; see `OperationsPort.limit_publishers`."""
        rows = self._session.answers(LIMIT_PUBLISHERS, {})
        return [LimitPublisher(**row._asdict()) for row in rows]

    def set_breaker(
        self, provider: str, model: str, credential: str, org_id: str = "", *, is_open: bool, by: By
    ) -> BreakerLine:
        """Open or close a breaker; see `OperationsPort.set_breaker`."""
        (row,) = self._session.answers(
            SET_BREAKER,
            {
                "provider": provider,
                "model": model,
                "credential": credential,
                "org_id": org_id,
                "is_open": is_open,
                "operator": by.operator,
                "reason": by.reason,
            },
        )
        return BreakerLine(**row._asdict())

    def pauses(self) -> list[Pause]:
        """List pauses; see `OperationsPort.pauses`."""
        return [_pause(row) for row in self._session.answers(PAUSES, {})]

    def pause(self, key: PauseKey, *, by: By) -> Pause:
        """Keep calls from being sent; see `OperationsPort.pause`."""
        (row,) = self._session.answers(PAUSE, {**asdict(key), **asdict(by)})
        return _pause(row)

    def resume(self, key: PauseKey, *, by: By) -> bool:
        """End a pause; see `OperationsPort.resume`."""
        (row,) = self._session.answers(RESUME, {**asdict(key), **asdict(by)})
        return bool(row.was_paused)

    def unknown_bills(self, which: UnknownFilter, *, limit: int) -> list[UnknownBill]:
        """List unknown bills; see `OperationsPort.unknown_bills`."""
        rows = self._session.answers(
            UNKNOWN_BILLS, {**asdict(which), "attempt_ids": None, "limit": limit}
        )
        return [_bill(row) for row in rows]

    def unknown_days(self, which: UnknownFilter) -> list[UnknownDay]:
        """Sum unknown bills; see `OperationsPort.unknown_days`."""
        rows = self._session.answers(UNKNOWN_DAYS, asdict(which))
        return [UnknownDay(**row._asdict()) for row in rows]

    def bills(self, attempt_ids: Sequence[UUID]) -> dict[UUID, UnknownBill]:
        """Look at attempts; see `OperationsPort.bills`."""
        which = {**asdict(UnknownFilter()), "attempt_ids": list(attempt_ids), "limit": None}
        return {row.attempt_id: _bill(row) for row in self._session.answers(UNKNOWN_BILLS, which)}

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
        """Read the figures and sums at one moment; see `OperationsPort.snapshot`."""
        (row,) = self._session.answers(AUDIT, {})
        seen = row._asdict()
        return Snapshot(**{**seen, "budgets": _DRIFTS.validate_python(seen["budgets"])})


def _spending_line(row: Any) -> SpendingLine:
    fields = row._asdict()
    sums = {name: int(fields[name]) for name in ("hold_nano_usd", "posted_nano_usd")}
    return SpendingLine(**{**fields, **sums})


def _bill(row: Any) -> UnknownBill:
    fields = row._asdict()
    key = CallKey(fields.pop("call_id"), fields.pop("generation"))
    fields |= {"status": AttemptStatus(row.status), "anomalies": tuple(row.anomalies)}
    return UnknownBill(key=key, **fields)


def _figures(row: Any) -> BudgetFigures:
    return BudgetFigures(
        budget_id=row.id,
        org_id=row.org_id,
        scope=row.scope,
        window=Window(row.window),
        timezone=row.timezone,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        limit_nano_usd=row.limit_nano_usd,
        reserved_nano_usd=row.reserved_nano_usd,
        spent_nano_usd=row.spent_nano_usd,
    )


def _pause(row: Any) -> Pause:
    key = PauseKey(row.provider, row.model, row.call_type, row.org_id, row.is_freeze)
    return Pause(key, By(row.operator, row.reason), row.at, row.waiting)


def _filter(call_filter: CallFilter) -> dict[str, Any]:
    state = call_filter.state
    return {
        "org_id": call_filter.org_id,
        "state": state.value if isinstance(state, CallState) else None,
        "wait_reason": call_filter.wait_reason and call_filter.wait_reason.value,
        "end_reason": call_filter.end_reason,
        "call_type": call_filter.call_type,
        "provider": call_filter.provider,
        "model": call_filter.model,
        "error_fingerprint": call_filter.error_fingerprint,
        "call_ids": list(call_filter.call_ids) or None,
    }


def _limit_line(row: Any) -> LimitLine:
    fields = {**row._asdict(), "source": Source(row.source), "measure": Measure(row.measure)}
    return LimitLine(**fields)
