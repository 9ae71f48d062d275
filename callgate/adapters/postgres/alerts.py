"""The alerts of the ledger in Postgres: `AlertsPort`, and what operators ask about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.alerts import (
    FIGURES_AGE_MAX_S,
    RAISED_AGAIN_S,
    STATES,
    WAITING_MAX,
    Alert,
    AlertDelivery,
    AlertEvent,
    AlertKind,
    AlertLine,
    AlertOutcome,
    Channel,
    LookTerms,
)
from callgate.domain.metrics import BUDGETS_MAX, ROWS_MAX
from callgate.domain.reports import By

LOOK = """SELECT callgate_look_for_alerts_v1(
    %(interval_s)s, %(rules)s::jsonb, %(again_s)s, %(figures_age_s)s, %(budgets_max)s, %(calls_max)s, %(rows_max)s
) AS raised"""
TAKE = "SELECT * FROM callgate_take_alerts_v1(%(channels)s::text[], %(limit)s, %(lease_s)s)"
KEEP = """SELECT callgate_keep_alert_outcomes_v1(
    %(ids)s::uuid[], %(failures)s::text[], %(again_s)s::float8[], %(dead_after_s)s) AS delivery_id"""
FORGET = "SELECT callgate_forget_alerts_v1(%(age_s)s, %(states)s::text[], %(limit)s) AS alerts"
LIST = (
    "SELECT * FROM callgate_alerts_v1(%(org_id)s, %(ids)s::bigint[], %(states)s::text[], %(limit)s)"
)
REPLAY = """SELECT callgate_replay_alerts_v1(
    %(ids)s::bigint[], %(limit)s, %(operator)s, %(reason)s) AS alert_id"""
WORKERS = "SELECT worker_id FROM callgate_workers_v1()"
TEST = "SELECT callgate_test_alert_v1(%(operator)s) AS alert_id"


class PostgresAlerts:
    """`AlertsPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def look(self, terms: LookTerms) -> int:
        """Raise and resolve; see `AlertsPort.look`."""
        (row,) = self._session.answers(
            LOOK,
            {
                "interval_s": terms.interval_s,
                "rules": json.dumps(terms.rules.to_json()),
                "again_s": RAISED_AGAIN_S,
                "figures_age_s": FIGURES_AGE_MAX_S,
                "budgets_max": BUDGETS_MAX,
                "calls_max": WAITING_MAX,
                "rows_max": ROWS_MAX,
            },
        )
        return int(row.raised)

    def take(
        self, channels: Sequence[Channel], *, limit: int, lease_s: float
    ) -> list[AlertDelivery]:
        """Take messages; see `AlertsPort.take`."""
        names = [channel.value for channel in channels]
        which = {"channels": names, "limit": limit, "lease_s": lease_s}
        return [
            AlertDelivery(
                row.delivery_id, AlertEvent(row.event), Channel(row.channel), row.tries, _alert(row)
            )
            for row in self._session.answers(TAKE, which)
        ]

    def keep(self, outcomes: Sequence[AlertOutcome], *, dead_after_s: float) -> list[UUID]:
        """Store how tries ended; see `AlertsPort.keep`."""
        rows = self._session.answers(
            KEEP,
            {
                "ids": [o.delivery_id for o in outcomes],
                "failures": [o.failure for o in outcomes],
                "again_s": [o.again_s for o in outcomes],
                "dead_after_s": dead_after_s,
            },
        )
        return [row.delivery_id for row in rows]

    def forget(self, *, age_s: float, limit: int) -> int:
        """Delete old alerts; see `AlertsPort.forget`."""
        (row,) = self._session.answers(
            FORGET, {"age_s": age_s, "states": list(STATES), "limit": limit}
        )
        return int(row.alerts)


class PostgresAlertOperations:
    """The part of `OperationsPort` that is about alerts."""

    _session: PostgresSession

    def alerts(
        self,
        org_id: str | None = None,
        *,
        ids: Sequence[int] | None = None,
        only_holding: bool = False,
        limit: int,
    ) -> list[AlertLine]:
        """List alerts; see `OperationsPort.alerts`."""
        which = {
            "org_id": org_id,
            "ids": None if ids is None else list(ids),
            "states": list(STATES) if only_holding else None,
            "limit": limit,
        }
        return [
            AlertLine(_alert(row), row.webhook, row.tries, row.failure)
            for row in self._session.answers(LIST, which)
        ]

    def alert_watchers(self) -> int:
        """Count live workers; see `OperationsPort.alert_watchers`."""
        return len(self._session.answers(WORKERS, {}))

    def replay_alerts(self, ids: Sequence[int] | None, *, limit: int, by: By) -> list[int]:
        """Send messages again; see `OperationsPort.replay_alerts`."""
        which = {
            "ids": None if ids is None else list(ids),
            "limit": limit,
            "operator": by.operator,
            "reason": by.reason,
        }
        return [row.alert_id for row in self._session.answers(REPLAY, which)]

    def test_alert(self, operator: str) -> int:
        """Raise a test; see `OperationsPort.test_alert`."""
        (row,) = self._session.answers(TEST, {"operator": operator})
        return int(row.alert_id)


def _alert(row: Any) -> Alert:
    kind = AlertKind(row.kind)
    detail = dict(row.detail)
    return Alert(row.alert_id, kind, row.org_id, row.subject, detail, row.at, row.resolved_at)
