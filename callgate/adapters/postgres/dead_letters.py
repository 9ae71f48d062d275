"""What operators see of calls without an answer, in Postgres: `EndedCallsPort`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey, CallState
from callgate.domain.dead_letters import (
    GROUPS_MAX,
    LOOKED_MAX,
    PAID_MAX,
    EndedCall,
    EndGroup,
    GivenUp,
    Place,
    UndeliveredLink,
    UnprocessableLine,
    discard_error,
)
from callgate.domain.reports import By, CallFilter

GROUPS = """SELECT * FROM callgate_end_groups_v1(
    %(state)s, %(name)s, %(org_id)s, %(since)s, %(until)s, %(groups_max)s, %(looked_max)s, %(paid_max)s)"""
CALLS = """SELECT * FROM callgate_ended_calls_v1(
    %(state)s, %(name)s, %(org_id)s, %(since)s, %(until)s, %(at)s, %(call_id)s, %(generation)s, %(limit)s)"""
DISCARD = """SELECT * FROM callgate_discard_v1(
    %(call_ids)s::uuid[], %(generations)s::int[], %(error)s, %(operator)s, %(reason)s)"""
LINKS = """SELECT * FROM callgate_undelivered_links_v1(
    %(org_id)s, %(given_up)s, %(at)s, %(submission_id)s, %(limit)s)"""
RETRY_LINKS = """SELECT submission_id FROM callgate_retry_links_v1(
    %(submission_ids)s::uuid[], %(operator)s, %(reason)s) AS t(submission_id)"""
UNPROCESSABLE = "SELECT * FROM callgate_unprocessable_v1(%(before_id)s, %(limit)s)"


class PostgresEndedCalls:
    """`EndedCallsPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def end_groups(
        self,
        which: CallFilter,
        *,
        groups_max: int = GROUPS_MAX,
        looked_max: int = LOOKED_MAX,
        paid_max: int = PAID_MAX,
    ) -> list[EndGroup]:
        """Group calls without an answer; see `EndedCallsPort.end_groups`."""
        state = which.state or CallState.DEAD
        bounds = {"groups_max": groups_max, "looked_max": looked_max, "paid_max": paid_max}
        rows = self._session.answers(GROUPS, {**_narrowed(which, state), **bounds})
        return [_group(state, row) for row in rows]

    def ended_calls(
        self, which: CallFilter, *, after: Place | None = None, limit: int
    ) -> list[EndedCall]:
        """List the calls of a group; see `EndedCallsPort.ended_calls`."""
        state = which.state or CallState.DEAD
        place = {
            "at": after and after.at,
            "call_id": after and after.key.call_id,
            "generation": after and after.key.generation,
        }
        narrowed = _narrowed(which, state)
        rows = self._session.answers(
            CALLS, {**narrowed, "name": narrowed["name"] or "", **place, "limit": limit}
        )
        return [_call(row) for row in rows]

    def discard(self, keys: Sequence[CallKey], *, by: By) -> list[CallKey]:
        """Discard dead letters; see `EndedCallsPort.discard`."""
        rows = self._session.answers(
            DISCARD,
            {
                "call_ids": [key.call_id for key in keys],
                "generations": [key.generation for key in keys],
                "error": discard_error(by),
                **asdict(by),
            },
        )
        return [CallKey(row.call_id, row.generation) for row in rows]

    def failing_links(self, org_id: str | None = None, *, limit: int) -> list[UndeliveredLink]:
        """List links that are tried again; see `EndedCallsPort.failing_links`."""
        return self._links(org_id, limit, given_up=False)

    def given_up_links(
        self, org_id: str | None = None, *, after: GivenUp | None = None, limit: int
    ) -> list[UndeliveredLink]:
        """List links that were given up; see `EndedCallsPort.given_up_links`."""
        return self._links(org_id, limit, given_up=True, after=after)

    def retry_links(self, submission_ids: Sequence[UUID], *, by: By) -> list[UUID]:
        """Have links tried again; see `EndedCallsPort.retry_links`."""
        rows = self._session.answers(
            RETRY_LINKS, {"submission_ids": list(submission_ids), **asdict(by)}
        )
        return [row.submission_id for row in rows]

    def unprocessable_lines(
        self, *, before_id: int | None = None, limit: int
    ) -> list[UnprocessableLine]:
        """List unprocessable messages; see `EndedCallsPort.unprocessable_lines`."""
        rows = self._session.answers(UNPROCESSABLE, {"before_id": before_id, "limit": limit})
        return [UnprocessableLine(**row._asdict()) for row in rows]

    def _links(
        self, org_id: str | None, limit: int, *, given_up: bool, after: GivenUp | None = None
    ) -> list[UndeliveredLink]:
        place = {"at": after and after.at, "submission_id": after and after.submission_id}
        rows = self._session.answers(
            LINKS, {"org_id": org_id, "given_up": given_up, **place, "limit": limit}
        )
        return [_link(row) for row in rows]


def _narrowed(which: CallFilter, state: CallState) -> dict[str, Any]:
    return {
        "state": state.value,
        "name": which.error_fingerprint if state is CallState.DEAD else which.end_reason,
        "org_id": which.org_id,
        "since": which.since,
        "until": which.until,
    }


def _group(state: CallState, row: Any) -> EndGroup:
    fields = row._asdict()
    names = {name: tuple(fields[name]) for name in ("providers", "models")}
    return EndGroup(state=state, **{**fields, **names})


def _call(row: Any) -> EndedCall:
    fields = row._asdict()
    key = CallKey(fields.pop("call_id"), fields.pop("generation"))
    return EndedCall(key=key, **fields)


def _link(row: Any) -> UndeliveredLink:
    fields = row._asdict()
    key = CallKey(fields.pop("call_id"), fields.pop("generation"))
    return UndeliveredLink(key=key, **{**fields, "state": CallState(row.state)})
