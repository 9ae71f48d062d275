"""
Dead letters: find them, plan and carry out a redrive, discard them.

A redrive gives a dead call another generation under today's gates, prices and budgets. The links of the dead call are
called again when the new generation ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.errors import InvalidRequest, OrganisationFrozen
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.ports import LedgerPort
from callgate.domain.reports import By, CallFilter, EndReason
from callgate.services.acceptance import require_stored
from callgate.services.results import request_of
from callgate.services.submit import SubmitService

SCANNED_MAX = 10_000
"""Dead calls that one search looks at."""
REDRIVEN_MAX = 1_000
"""Calls of one plan, unless the operator allows more."""
BATCH_MAX = 100
"""Calls that are read or stored at once: requests can be large."""
SUCCESSORS_MAX = 1_000
"""Keys per read, without bodies."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A dead call that would be redriven, and the most its next attempt can cost."""

    key: CallKey
    worst_case_nano_usd: int


@dataclass(frozen=True, slots=True)
class RedrivePlan:
    """
    What a redrive would do, before anything is done.

    It holds no request: requests can be large, and retention may remove them before the plan is carried out.
    """

    calls: tuple[PlannedCall, ...]
    left_out: Mapping[CallKey, str]
    """Dead calls that cannot be redriven, and why not."""
    rate_per_s: float | None = None
    """Calls per second; None: as fast as the ledger takes them."""

    @property
    def worst_case_nano_usd(self) -> int:
        """The most that one attempt of every call can cost."""
        return sum(call.worst_case_nano_usd for call in self.calls)

    @property
    def batch_size(self) -> int:
        """Calls that are stored at once."""
        if self.rate_per_s is None:
            return BATCH_MAX
        return max(1, min(BATCH_MAX, int(self.rate_per_s)))

    @property
    def pause_s(self) -> float:
        """Seconds between two batches."""
        return 0.0 if self.rate_per_s is None else self.batch_size / self.rate_per_s

    def batches(self) -> Iterator[list[CallKey]]:
        """The keys, a batch at a time."""
        keys = [call.key for call in self.calls]
        for start in range(0, len(keys), self.batch_size):
            yield keys[start : start + self.batch_size]


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did."""

    keys: tuple[CallKey, ...]
    """The new generations that were created."""
    left_out: Mapping[CallKey, str]
    """Dead calls that were not redriven, and why not."""


class DeadLetterService:
    """Finds, redrives and discards dead calls."""

    def __init__(
        self,
        *,
        ledger: LedgerPort,
        operations: OperationsPort,
        submits: SubmitService,
        sleep: Callable[[float], None],
    ) -> None:
        self._ledger = ledger
        self._operations = operations
        self._submits = submits
        self._sleep = sleep

    def find(self, call_filter: CallFilter, *, limit: int) -> list[CallView]:
        """
        List dead calls that no later generation has replaced, newest first.

        A replaced call must not be redriven: its later generation may have succeeded, and the answer would be paid
        twice.
        """
        dead = replace(call_filter, state=CallState.DEAD)
        views = self._operations.calls(dead, limit=SCANNED_MAX)
        found: list[CallView] = []
        for start in range(0, len(views), SUCCESSORS_MAX):
            part = views[start : start + SUCCESSORS_MAX]
            next_keys = [CallKey(v.key.call_id, v.key.generation + 1) for v in part]
            successors = self._ledger.read(next_keys)
            found += [v for v, later in zip(part, successors, strict=True) if later is None]
            if len(found) >= limit:
                break
        return found[:limit]

    def plan(
        self,
        call_filter: CallFilter,
        *,
        calls_max: int = REDRIVEN_MAX,
        rate_per_s: float | None = None,
    ) -> RedrivePlan:
        """Choose the newest dead calls of a filter, ask today's gates, and price each call once."""
        keys = [view.key for view in self.find(call_filter, limit=calls_max)]
        planned: list[PlannedCall] = []
        left_out: dict[CallKey, str] = {}
        for start in range(0, len(keys), BATCH_MAX):
            for key, view in self._dead(keys[start : start + BATCH_MAX], left_out):
                try:
                    quote = self._submits.quote(request_of(view))
                    planned.append(PlannedCall(key, quote.worst_case_nano_usd))
                except (InvalidRequest, ValueError) as exc:
                    left_out[key] = str(exc)
        return RedrivePlan(tuple(planned), left_out, rate_per_s)

    def carry_out(self, plan: RedrivePlan) -> Redriven:
        """
        Redrive the calls of a plan at its pace. A call that is no longer dead is left out.

        Raises:
            LedgerUnavailable: Earlier batches are redriven; a new plan finds the rest.
        """
        redriven: list[CallKey] = []
        left_out = dict(plan.left_out)
        for number, keys in enumerate(plan.batches()):
            if number and plan.pause_s:
                self._sleep(plan.pause_s)
            answers, refused = self.redrive(keys)
            redriven += [a.key for a in answers if a.outcome is SubmitOutcome.CREATED]
            left_out |= refused
        return Redriven(tuple(redriven), left_out)

    def redrive(self, keys: Sequence[CallKey]) -> tuple[list[Submitted], dict[CallKey, str]]:
        """
        Redrive one batch of dead calls at once.

        Returns:
            What was submitted, and for each other key why it was not.
        """
        left_out: dict[CallKey, str] = {}
        prepared: dict[CallKey, NewSubmission] = {}
        for key, view in self._dead(keys, left_out):
            try:
                request = request_of(view)
                prepared[key] = self._submits.prepare(request, force=True, inherit_links=True)
            except (InvalidRequest, ValueError) as exc:
                left_out[key] = str(exc)
        try:
            return self._store(prepared, left_out), left_out
        except OrganisationFrozen:
            return self._store_apart(prepared, left_out), left_out

    def _store_apart(
        self, prepared: Mapping[CallKey, NewSubmission], left_out: dict[CallKey, str]
    ) -> list[Submitted]:
        """Redrive the calls of each organisation apart; adds to `left_out` those of frozen ones."""
        answers: list[Submitted] = []
        for org_id in sorted({new.org_id for new in prepared.values()}):
            own = {key: new for key, new in prepared.items() if new.org_id == org_id}
            try:
                answers += self._store(own, left_out)
            except OrganisationFrozen as exc:
                left_out |= dict.fromkeys(own, str(exc))
        return answers

    def _store(
        self, prepared: Mapping[CallKey, NewSubmission], left_out: dict[CallKey, str]
    ) -> list[Submitted]:
        """Redrive calls; adds to `left_out` those of busy organisations."""
        batch = list(prepared.values())
        answers = self._submits.store(batch)
        require_stored(batch, answers)
        for key, answer in zip(prepared, answers, strict=True):
            if full := answer.open_calls:
                left_out[key] = f"its organisation has {full.calls} of {full.calls_max} open calls"
        return [answer for answer in answers if answer.open_calls is None]

    def discard(self, keys: Sequence[CallKey], *, by: By) -> list[CallKey]:
        """
        Discard dead calls: they become rejected, and keep who did it and why.

        Returns:
            The calls that were still dead.
        """
        message = f"{by.reason} (by {by.operator})"
        discarded: list[CallKey] = []
        for start in range(0, len(keys), BATCH_MAX):
            discarded += self._operations.end(
                keys[start : start + BATCH_MAX], code=EndReason.DISCARDED, message=message
            )
        return discarded

    def _dead(
        self, keys: Sequence[CallKey], left_out: dict[CallKey, str]
    ) -> Iterator[tuple[CallKey, CallView]]:
        """Read dead calls with their requests, one at a time; adds to `left_out` why others cannot be redriven."""
        views = self._ledger.read(keys, Bodies.REQUEST)
        for key, view in zip(keys, views, strict=True):
            if view is None or view.state is not CallState.DEAD:
                left_out[key] = f"not dead but {view.state if view else 'unknown'}"
            elif view.request is None:
                left_out[key] = "its request was purged"
            else:
                yield key, view
