"""
Dead letters: find them, redrive a few at once.

A redrive gives a dead call another generation under today's gates, prices and budgets. The links of the dead call are
called again when the new generation ends. Operators plan one with a price first: `RedriveService`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.errors import InvalidRequest, OrganisationFrozen
from callgate.domain.ledger import NewSubmission, Submitted
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.ports import LedgerPort
from callgate.domain.reports import CallFilter
from callgate.services.acceptance import require_stored
from callgate.services.results import request_of
from callgate.services.submit import SubmitService

SCANNED_MAX = 10_000
"""Dead calls that one search looks at."""
DISCARDED_MAX = 1_000
"""Calls that are discarded, unless the operator allows more."""
BATCH_MAX = 100
"""Calls that are read or stored at once: requests can be large."""
SUCCESSORS_MAX = 1_000
"""Keys per read, without bodies."""


class DeadLetterService:
    """Finds and redrives dead calls."""

    def __init__(
        self, ledger: LedgerPort, operations: OperationsPort, submits: SubmitService
    ) -> None:
        self._ledger = ledger
        self._operations = operations
        self._submits = submits

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
