"""What operators see of calls without an answer, in the memory ledger: `EndedCallsPort`."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from callgate.adapters.memory.rows import CallRow, SubmissionRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import AttemptStatus, CallKey, CallState
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
from callgate.domain.reports import By, CallFilter, EndReason

NAMED_MAX = 5
EACH_MIN = 100
PAID_EACH_MIN = 10


class MemoryEndedCalls:
    """`EndedCallsPort` over the tables of the memory ledger."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._lock = lock

    def end_groups(
        self,
        which: CallFilter,
        *,
        groups_max: int = GROUPS_MAX,
        looked_max: int = LOOKED_MAX,
        paid_max: int = PAID_MAX,
    ) -> list[EndGroup]:
        """Group calls without an answer."""
        with self._lock:
            groups, cut = self._looked(which, groups_max, looked_max)
            unreplaced = {
                name: [call for call in calls if not self._is_replaced(call)]
                for name, calls in groups.items()
            }
            left = {name: calls for name, calls in unreplaced.items() if calls}
            paid_each = max(PAID_EACH_MIN, paid_max // max(1, len(left)))
            found = [
                self._group(name, calls, paid_each, name in cut) for name, calls in left.items()
            ]
            return sorted(found, key=lambda g: (-g.last_at.timestamp(), g.name))[:groups_max]

    def ended_calls(
        self, which: CallFilter, *, after: Place | None = None, limit: int
    ) -> list[EndedCall]:
        """List the calls of a group."""
        state = which.state or CallState.DEAD
        name = which.error_fingerprint if state is CallState.DEAD else which.end_reason
        with self._lock:
            found = [
                call
                for call in self._ended(which, state)
                if _name(call) == (name or "")
                and not self._is_replaced(call)
                and (after is None or _order(call) < (after.at, *_parts(after.key)))
            ]
            return [self._line(call) for call in found[:limit]]

    def discard(self, keys: Sequence[CallKey], *, by: By) -> list[CallKey]:
        """Discard dead letters."""
        with self._lock:
            now, error = self._clock(), discard_error(by)
            known = [self._tables.calls[key] for key in keys if key in self._tables.calls]
            dead = [
                call
                for call in known
                if call.state is CallState.DEAD and call.key not in self._tables.locked
            ]
            dead.sort(key=lambda call: call.key.call_id)
            for call in dead:
                self._tables.end(call, CallState.REJECTED, error, now)
            if dead:
                orgs, first = {call.org_id for call in dead}, dead[0].key.task_id
                self._tables.log_action(
                    now, by, "dead_letters.discard", orgs.pop() if len(orgs) == 1 else None,
                    first if len(dead) == 1 else f"{len(dead)} dead letters",
                    calls=len(dead), first=first,
                )  # fmt: skip
            return [call.key for call in dead]

    def failing_links(self, org_id: str | None = None, *, limit: int) -> list[UndeliveredLink]:
        """List links that are tried again."""
        with self._lock:
            found = [s for s in self._failed(org_id) if s.has_link_to_tell]
            found.sort(key=lambda s: (s.try_at or s.created_at, s.submission_id))
            return [self._link(s) for s in found[:limit]]

    def given_up_links(
        self, org_id: str | None = None, *, after: GivenUp | None = None, limit: int
    ) -> list[UndeliveredLink]:
        """List links that were given up."""
        with self._lock:
            found = [
                (s.given_up_at, s.submission_id, s)
                for s in self._failed(org_id)
                if s.given_up_at is not None
            ]
            found.sort(key=lambda row: row[:2], reverse=True)
            place = after and (after.at, after.submission_id)
            return [self._link(row[2]) for row in found if not place or row[:2] < place][:limit]

    def retry_links(self, submission_ids: Sequence[UUID], *, by: By) -> list[UUID]:
        """Have links tried again."""
        with self._lock:
            now = self._clock()
            chosen = sorted(
                (s for s in self._failed(None) if s.submission_id in submission_ids and s.link),
                key=lambda s: s.submission_id,
            )
            for row in chosen:
                row.given_up_at, row.tries, row.try_at = None, 0, now
                self._tables.schedule_delivery(self._tables.calls[row.key], now)
            if chosen:
                orgs = {self._tables.calls[row.key].org_id for row in chosen}
                self._tables.log_action(
                    now, by, "links.retry", orgs.pop() if len(orgs) == 1 else None,
                    f"{len(chosen)} links", first=str(chosen[0].submission_id), links=len(chosen),
                )  # fmt: skip
            return [row.submission_id for row in chosen]

    def unprocessable_lines(
        self, *, before_id: int | None = None, limit: int
    ) -> list[UnprocessableLine]:
        """List unprocessable messages."""
        with self._lock:
            lines = [
                UnprocessableLine(number, at, m.queue, m.reason, len(m.raw))
                for number, (at, m) in enumerate(self._tables.unprocessable_messages, 1)
                if before_id is None or number < before_id
            ]
            return lines[::-1][:limit]

    def _ended(self, which: CallFilter, state: CallState) -> list[CallRow]:
        """The calls that are meant, newest first, replaced ones too."""
        is_dead = state is CallState.DEAD
        named = which.error_fingerprint if is_dead else which.end_reason
        found = [
            call
            for call in self._tables.calls.values()
            if call.state is state
            and which.org_id in (None, call.org_id)
            and named in (None, _name(call))
            and (which.since is None or call.created_at >= which.since)
            and (which.until is None or call.created_at < which.until)
        ]
        return sorted(found, key=_order, reverse=True)

    def _looked(
        self, which: CallFilter, groups_max: int, looked_max: int
    ) -> tuple[dict[str, list[CallRow]], set[str]]:
        """The calls that are looked at, by group, and the groups of which older ones are left out."""
        groups: defaultdict[str, list[CallRow]] = defaultdict(list)
        newest = self._ended(which, which.state or CallState.DEAD)
        if which.org_id is not None:
            for call in newest[:looked_max]:
                groups[_name(call)].append(call)
            return dict(groups), set(groups) if len(newest) >= looked_max else set()
        for call in newest:
            groups[_name(call)].append(call)
        names = list(groups)[:groups_max]
        each = max(EACH_MIN, looked_max // max(1, len(names)))
        cut = {name for name in names if len(groups[name]) >= each}
        return {name: groups[name][:each] for name in names}, cut

    def _group(self, name: str, calls: list[CallRow], paid_each: int, is_more: bool) -> EndGroup:
        """Calls of one group, newest first."""
        newest = calls[0]
        paid = [self._line(call) for call in calls[:paid_each] if call.attempt]
        times = [line.ended_at for line in paid if line.ended_at is not None]
        return EndGroup(
            state=newest.state,
            name=name,
            reason=newest.end_reason or "",
            providers=tuple(sorted({call.provider for call in calls}))[:NAMED_MAX],
            models=tuple(sorted({call.model for call in calls}))[:NAMED_MAX],
            sample_error=newest.error or "",
            count=len(calls),
            is_more=is_more,
            orgs=len({call.org_id for call in calls}),
            first_at=self._first_at(newest.state, name),
            last_at=max([newest.created_at, *times]),
            posted_nano_usd=sum(line.posted_nano_usd for line in paid),
            uncounted=sum(call.attempt > 0 for call in calls) - len(paid),
            again=sum(self._is_again(call) for call in calls),
        )

    def _first_at(self, state: CallState, name: str) -> datetime:
        return min(
            call.created_at
            for call in self._tables.calls.values()
            if (call.state is state and _name(call) == name)
            or (
                state is CallState.DEAD
                and call.end_reason == EndReason.DISCARDED
                and (call.error_fingerprint or "") == name
            )
        )

    def _line(self, call: CallRow) -> EndedCall:
        attempts = self._tables.attempts_of[call.key]
        return EndedCall(
            key=call.key,
            org_id=call.org_id,
            call_type=call.call_type,
            provider=call.provider,
            model=call.model,
            attempts=call.attempt,
            created_at=call.created_at,
            ended_at=max((a.posted_at for a in attempts if a.posted_at), default=None),
            error=call.error or "",
            posted_nano_usd=sum(a.posted_nano_usd or 0 for a in attempts),
            unknown_attempts=sum(a.status is AttemptStatus.UNKNOWN for a in attempts),
            is_again=self._is_again(call),
        )

    def _is_again(self, call: CallRow) -> bool:
        before = self._tables.calls.get(CallKey(call.key.call_id, call.key.generation - 1))
        return before is not None and before.state is call.state and _name(before) == _name(call)

    def _is_replaced(self, call: CallRow) -> bool:
        return self._tables.newest_generation[call.key.call_id] > call.key.generation

    def _failed(self, org_id: str | None) -> list[SubmissionRow]:
        """Submissions whose link was refused and is not delivered."""
        return [
            s
            for s in self._tables.submissions.values()
            if s.failure is not None
            and s.delivered_at is None
            and org_id in (None, self._tables.calls[s.key].org_id)
        ]

    def _link(self, row: SubmissionRow) -> UndeliveredLink:
        call = self._tables.calls[row.key]
        return UndeliveredLink(
            submission_id=row.submission_id,
            key=row.key,
            org_id=call.org_id,
            state=call.state,
            tries=row.tries,
            why=row.failure or "",
            try_at=row.try_at if row.given_up_at is None else None,
            given_up_at=row.given_up_at,
            is_purged=row.link is None,
        )


def _name(call: CallRow) -> str:
    name = call.error_fingerprint if call.state is CallState.DEAD else call.end_reason
    return name or ""


def _parts(key: CallKey) -> tuple[UUID, int]:
    return key.call_id, key.generation


def _order(call: CallRow) -> tuple[datetime, UUID, int]:
    return call.created_at, *_parts(call.key)
