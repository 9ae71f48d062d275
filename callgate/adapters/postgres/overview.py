"""What the pages "Overview" and "Action log" read and change in Postgres: `OverviewPort`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey, CallState
from callgate.domain.overview import ActionFilter, Glance, LoggedAction, ProviderHealth
from callgate.domain.reports import By, OperatorAction

GLANCE = "SELECT * FROM callgate_overview_v1(%(dead_s)s, %(rows_max)s)"
HEALTH = "SELECT * FROM callgate_provider_health_v1(%(age_s)s, %(attempts_max)s)"
NOTE = "SELECT callgate_note_v1(%(operator)s, %(reason)s, %(org_id)s) AS noted"
STATES = """SELECT l.call_id, l.generation, l.state
    FROM unnest(%(call_ids)s::uuid[], %(generations)s::int[]) AS k(call_id, generation)
    JOIN llm_call l USING (call_id, generation)"""
ACTIONS = """SELECT * FROM operator_action x
    WHERE {where} ORDER BY x.id DESC LIMIT %(limit)s"""


class PostgresOverview:
    """`OverviewPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def glance(self, *, dead_s: float, rows_max: int) -> Glance:
        """Read what is wrong or held now; see `OverviewPort.glance`."""
        parameters = {"dead_s": dead_s, "rows_max": rows_max}
        (row,) = self._session.answers(GLANCE, parameters)
        amounts = {n: int(v) for n, v in row._asdict().items() if n != "at"}
        return Glance(at=row.at, **amounts)

    def provider_health(self, *, age_s: float, attempts_max: int) -> list[ProviderHealth]:
        """Look at the newest attempts; see `OverviewPort.provider_health`."""
        parameters = {"age_s": age_s, "attempts_max": attempts_max}
        rows = self._session.answers(HEALTH, parameters)
        return [ProviderHealth(**row._asdict()) for row in rows]

    def states(self, keys: Sequence[CallKey]) -> dict[CallKey, CallState]:
        """Read the states of calls; see `OverviewPort.states`."""
        parameters = {
            "call_ids": [key.call_id for key in keys],
            "generations": [key.generation for key in keys],
        }
        rows = self._session.answers(STATES, parameters)
        return {CallKey(row.call_id, row.generation): CallState(row.state) for row in rows}

    def actions_page(
        self, which: ActionFilter, *, before: int | None = None, limit: int
    ) -> list[LoggedAction]:
        """List actions; see `OverviewPort.actions_page`."""
        given = {name: value for name, value in asdict(which).items() if value is not None}
        where = [f"x.{name} = %({name})s" for name in given]
        if before is not None:
            where.append("x.id < %(before)s")
        sql = ACTIONS.format(where=" AND ".join(where) or "true")
        rows = self._session.answers(sql, {**given, "before": before, "limit": limit})
        return [
            LoggedAction(
                r.id,
                r.login,
                OperatorAction(
                    r.at, By(r.operator, r.reason), r.action, r.org_id, r.subject, dict(r.detail)
                ),
            )
            for r in rows
        ]

    def note(self, org_id: str | None, *, by: By) -> None:
        """Write a note; see `OverviewPort.note`."""
        self._session.answers(NOTE, {**asdict(by), "org_id": org_id})
