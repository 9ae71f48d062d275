"""Calls in Postgres, as operators look for them: `CallSearchPort`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from callgate.adapters.postgres.cost_series import PostgresCostSeries
from callgate.adapters.postgres.ledger import VIEWS, PostgresLedger
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.views import attempt_view
from callgate.domain.bounds import reason_json
from callgate.domain.call_history import (
    ACTIONS_MAX,
    ATTEMPTS_MAX,
    BODY_MAX_BYTES,
    GENERATIONS_MAX,
    SUBMISSIONS_MAX,
    Attempt,
    Body,
    CallHistory,
    Generation,
    SubmissionLine,
    Submissions,
)
from callgate.domain.call_pages import (
    COUNTED_MAX,
    LISTED_PAGES,
    STEPS,
    STEPS_MAX,
    CallChart,
    CallCount,
    CallPage,
    PageOf,
    Position,
    chart_of_sums,
    looked_max,
    page_of,
    sums_can_tell,
)
from callgate.domain.calls import CallKey, CallState, CallView
from callgate.domain.errors import NotPermitted
from callgate.domain.reports import By, CallFilter, EndReason, OperatorAction

CALLS = """SELECT * FROM callgate_calls_v2(
    %(org_id)s, %(state)s, %(reason)s, %(wait_reason)s, %(end_reason)s, %(call_type)s, %(provider)s, %(model)s,
    %(error_fingerprint)s, %(trace_id)s, %(call_ids)s::uuid[], %(generation)s, %(since)s, %(until)s, %(tier)s, %(kind)s,
    %(outcome)s, %(at)s, %(at_call_id)s::uuid, %(at_generation)s, %(is_newer)s, %(looked_max)s, %(says_end)s,
    %(limit)s)"""
CALL_IDS = "SELECT * FROM callgate_call_ids_v1(%(first)s::uuid, %(last)s::uuid, %(limit)s)"
COUNT = f"""SELECT count(*) FILTER (WHERE NOT is_end)::int AS calls, min(created_at) FILTER (WHERE is_end) AS looked_to
  FROM ({CALLS}) k"""  # noqa: S608
CHART = f"""WITH k AS MATERIALIZED ({CALLS}), b AS (
    SELECT coalesce(%(since)s, min(created_at), %(until)s, %(now)s) AS since, coalesce(%(until)s, %(now)s) AS until,
           min(created_at) FILTER (WHERE is_end) AS looked_to FROM k
), t AS (
    SELECT b.*, coalesce(
               (SELECT min(x) FROM unnest(%(steps)s::int[]) x
                 WHERE extract(epoch FROM b.until - b.since) / x <= {STEPS_MAX}),
               {STEPS[-1].days * 86_400}) AS step
      FROM b)
SELECT t.*, date_bin(make_interval(secs => t.step), k.created_at, timestamptz '2000-01-03 00:00Z') AS at, k.state,
       count(k.state)::int AS calls
  FROM t LEFT JOIN k ON NOT k.is_end GROUP BY 1, 2, 3, 4, 5, 6"""  # noqa: S608
ATTEMPTS = (
    "SELECT * FROM callgate_attempts_of_call_v1(%(call_id)s::uuid, %(generation)s, %(limit)s)"
)
SUBMISSIONS = (
    "SELECT * FROM callgate_submissions_of_call_v1(%(call_id)s::uuid, %(generation)s, %(limit)s)"
)
ACTIONS_OF = "SELECT * FROM operator_action WHERE subject = ANY (%(subjects)s) ORDER BY id DESC LIMIT %(limit)s"
CANCEL = """SELECT callgate_cancel_v1(
    %(call_id)s::uuid, %(generation)s, %(error)s, %(operator)s, %(reason)s) AS is_cancelled"""
SHOW_BODY = """SELECT * FROM callgate_show_body_v1(
    %(call_id)s::uuid, %(generation)s, %(attempt_id)s::uuid, %(max_bytes)s, %(operator)s, %(reason)s)"""


class PostgresCallSearch:
    """`CallSearchPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._views = PostgresLedger(session, read=VIEWS)
        self._cost_series = PostgresCostSeries(session)

    def calls(self, call_filter: CallFilter, *, limit: int) -> list[CallView]:
        """List calls; see `CallSearchPort.calls`."""
        page = PageOf(limit, looked_max=LISTED_PAGES * looked_max(call_filter, PageOf()))
        walk = {**_walk(call_filter, page), "limit": limit, "says_end": False}
        return self._read([_key(row) for row in self._session.answers(CALLS, walk)])

    def call_page(self, call_filter: CallFilter, page: PageOf) -> CallPage:
        """Return one page; see `CallSearchPort.call_page`."""
        rows = self._session.answers(CALLS, _walk(call_filter, page))
        found = [Position(row.created_at, _key(row)) for row in rows if not row.is_end]
        stop = next((Position(row.created_at, _key(row)) for row in rows if row.is_end), None)
        return page_of(found, stop, page, self._read)

    def views(self, keys: Sequence[CallKey]) -> list[CallView | None]:
        """Look at calls; see `CallSearchPort.views`."""
        return list(self._views.read(keys))

    def call_ids(self, first: UUID, last: UUID, *, limit: int) -> list[UUID]:
        """List call ids of a range; see `CallSearchPort.call_ids`."""
        rows = self._session.answers(CALL_IDS, {"first": first, "last": last, "limit": limit})
        return [row.call_id for row in rows]

    def count_calls(self, call_filter: CallFilter) -> CallCount:
        """Count calls; see `CallSearchPort.count_calls`."""
        (row,) = self._session.answers(
            COUNT, {**_walk(call_filter, PageOf()), "limit": COUNTED_MAX}
        )
        is_more = row.calls >= COUNTED_MAX
        return CallCount(row.calls, is_more, None if is_more else row.looked_to)

    def call_chart(self, call_filter: CallFilter, now: datetime) -> CallChart:
        """Count calls over time; see `CallSearchPort.call_chart`."""
        if sums := sums_can_tell(call_filter):
            return chart_of_sums(self._cost_series, sums, now)
        rows = self._session.answers(
            CHART,
            {
                **_walk(call_filter, PageOf()),
                "limit": COUNTED_MAX,
                "now": now,
                "steps": [int(step.total_seconds()) for step in STEPS],
            },
        )
        counts: defaultdict[str, dict[datetime, int]] = defaultdict(dict)
        for row in rows:
            if row.state is not None:
                counts[row.state][row.at] = row.calls
        first = rows[0]
        return CallChart(
            first.step, first.since, first.until, dict(counts), is_of_attempts=False, looked_to=first.looked_to
        )  # fmt: skip

    def call_history(self, key: CallKey) -> CallHistory:
        """Return what is kept of one call; see `CallSearchPort.call_history`."""
        names = {"call_id": key.call_id, "generation": key.generation}
        rows = self._session.answers(ATTEMPTS, {**names, "limit": ATTEMPTS_MAX})
        attempts = tuple(_attempt(row) for row in rows)
        submissions = self._session.answers(SUBMISSIONS, {**names, "limit": SUBMISSIONS_MAX})
        of_call = CallFilter(call_ids=(key.call_id,))
        generations = self._session.answers(CALLS, _walk(of_call, PageOf(GENERATIONS_MAX)))
        subjects = [key.task_id, *(str(a.view.attempt_id) for a in attempts)]
        return CallHistory(
            attempts,
            _submissions(submissions),
            tuple(Generation(_key(r), CallState(r.state), r.created_at) for r in generations),
            self._actions_of(subjects),
        )

    def cancel(self, key: CallKey, *, by: By) -> bool:
        """Cancel a call; see `CallSearchPort.cancel`."""
        error = reason_json(EndReason.CANCELLED, by.reason)
        (row,) = self._session.answers(CANCEL, {**asdict(key), "error": error, **asdict(by)})
        return bool(row.is_cancelled)

    def show_body(self, key: CallKey, attempt_id: UUID | None, *, by: By) -> Body | None:
        """Read a body; see `CallSearchPort.show_body`."""
        named = {**asdict(key), "attempt_id": attempt_id, "max_bytes": BODY_MAX_BYTES}
        rows = self._session.answers(SHOW_BODY, {**named, **asdict(by)})
        if not rows:
            return None
        (row,) = rows
        return Body(None if row.body is None else bytes(row.body), row.bytes or 0)

    def _read(self, keys: Sequence[CallKey]) -> list[CallView]:
        return [view for view in self._views.read(keys) if view is not None]

    def _actions_of(self, subjects: Sequence[str]) -> tuple[OperatorAction, ...]:
        try:
            rows = self._session.answers(
                ACTIONS_OF, {"subjects": list(subjects), "limit": ACTIONS_MAX}
            )
        except NotPermitted:
            return ()
        return tuple(operator_action(row) for row in rows)


def operator_action(row: Any) -> OperatorAction:
    """A row of the action log."""
    by = By(row.operator, row.reason)
    return OperatorAction(row.at, by, row.action, row.org_id, row.subject, dict(row.detail))


def filter_parameters(call_filter: CallFilter) -> dict[str, Any]:
    """The parameters of functions that take a filter."""
    return {**asdict(call_filter), "call_ids": list(call_filter.call_ids) or None}


def _walk(call_filter: CallFilter, page: PageOf) -> dict[str, Any]:
    """The parameters of `CALLS`: one call more than a page has, to see whether there is one."""
    at = page.newer_than or page.older_than
    return {
        **filter_parameters(call_filter),
        "at": at and at.created_at,
        "at_call_id": at and at.key.call_id,
        "at_generation": at and at.key.generation,
        "is_newer": page.newer_than is not None,
        "looked_max": looked_max(call_filter, page),
        "says_end": True,
        "limit": page.limit + 1,
    }


def _key(row: Any) -> CallKey:
    return CallKey(row.call_id, row.generation)


def _attempt(row: Any) -> Attempt:
    return Attempt(attempt_view(row), row.posted_at, row.settled_by_hand_at, row.reply_bytes)


def _submissions(rows: Sequence[Any]) -> Submissions:
    if not rows:
        return Submissions()
    lines = tuple(
        SubmissionLine(
            row.submission_id, row.outcome, row.created_at, row.idempotency_key, row.has_link,
            row.delivered_at, row.tries, row.failure, row.try_at, row.given_up_at,
        )
        for row in rows
    )  # fmt: skip
    first = rows[0]
    return Submissions(
        lines, first.total, first.collapsed, first.saving, first.links, first.told, first.lost
    )
