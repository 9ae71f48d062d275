"""`/unknown`: bills that nobody knows, with their money; settled one by one, or several that were never billed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from callgate.domain.budgets import usd
from callgate.domain.errors import InvalidRequest
from callgate.domain.reports import By
from callgate.domain.unknown import (
    BILLED_MAX_USD,
    HandOutcome,
    SettledByHand,
    UnknownBill,
    UnknownFilter,
)
from callgate.services.bills import BillService, EnteredBill
from worker.flower import money, words
from worker.flower.fields import (
    end_of,
    read_attempt,
    read_day,
    read_moment,
    read_nano_usd,
    read_optional_name,
    read_usd,
)
from worker.flower.page import Page
from worker.flower.source import Ledger

SHOWN_MAX = 100
SUMMED_MAX = 10_000
FILTERS = ("org", "provider", "model", "since", "until")
WHY_NOT = {
    HandOutcome.SETTLED: "",
    HandOutcome.UNCHANGED: "it was settled by hand at this amount before",
    HandOutcome.CHANGED: "it was settled by hand, or its answer came late: look at it again",
    HandOutcome.ABOVE_HOLD: "more than was held: tick that this is right, if it is",
    HandOutcome.NOT_UNKNOWN: "its cost is known, or it is still running",
    HandOutcome.ARCHIVED: "its month of the log was dropped; only the sums remain",
    HandOutcome.NOT_FOUND: "the ledger has no such attempt",
}


class Unknown(Page):
    """The list, newest first."""

    path, name, title = "/unknown", "unknown", "Unknown bills"

    async def get(self) -> None:
        """List unknown bills, and sum them up by model."""
        given = {name: self.word(name) for name in FILTERS}
        which, after = filter_of(given), self._after()

        def read(ledger: Ledger) -> tuple[list[UnknownBill], Sequence[Any]]:
            operations = ledger.operations
            bills = operations.unknown_page(which, after=after, limit=SHOWN_MAX + 1)
            return bills, operations.unknown_sums(which, attempts_max=SUMMED_MAX)

        bills, sums = await self.read(read)
        shown = bills[:SHOWN_MAX]
        older = None
        if len(bills) > SHOWN_MAX:
            last = shown[-1]
            place = {"after_at": last.started_at.isoformat(), "after_id": last.attempt_id}
            older = self.link("/unknown", **given, **place)
        self.show(
            "unknown.html",
            bills=shown,
            sums=sums,
            given=given,
            summed_max=SUMMED_MAX,
            why_unknown=why_unknown,
            older=older,
            newest=after and self.link("/unknown", **given),
        )

    async def post(self) -> None:
        """Settle the ticked ones as never billed, each if it still posts what the page showed."""
        given = {name: self.word(name) for name in FILTERS}
        ticked = [read_tick(tick) for tick in self.get_body_arguments("tick")[:SHOWN_MAX]]

        def change(ledger: Ledger, by: By) -> list[SettledByHand]:
            if not ticked:
                raise InvalidRequest("tick the bills that were never billed")
            bills = [EnteredBill(attempt_id, 0, seen) for attempt_id, seen in ticked]
            return settled_or_why_not(list(BillService(ledger.operations).settle(bills, by=by)))

        await self.change(change, then=self.link("/unknown", **given), done=settled_words)

    def _after(self) -> tuple[datetime, UUID] | None:
        at, attempt_id = self.word("after_at"), self.word("after_id")
        return (read_moment(at), read_attempt(attempt_id)) if at and attempt_id else None


class OneUnknown(Page):
    """`/unknown/one`: one attempt, and what the provider billed for it."""

    path, name, title, tab = "/unknown/one", "unknown_one", "Bill", "unknown"

    async def get(self) -> None:
        """Show the attempt."""
        if not self.word("attempt"):
            self.redirect(self.link("/unknown"))
            return
        attempt_id = read_attempt(self.word("attempt"))
        found = await self.read(lambda ledger: ledger.operations.bills([attempt_id]))
        self.show(
            "one_unknown.html",
            attempt_id=attempt_id,
            bill=found.get(attempt_id),
            why_unknown=why_unknown,
            money=money,
        )

    async def post(self) -> None:
        """Post what was billed, if the attempt still posts what the page showed."""
        attempt_id, seen = read_attempt(self.word("attempt")), read_nano_usd(self.word("seen"))
        is_unbilled = self.word("unbilled") == "1"
        entered, may_exceed = self.word("billed"), self.word("more") == "1"

        def change(ledger: Ledger, by: By) -> list[SettledByHand]:
            if is_unbilled == bool(entered):
                raise InvalidRequest("enter what was billed, or tick that nothing was")
            billed = 0 if is_unbilled else read_usd(entered, usd_max=BILLED_MAX_USD)
            bill = EnteredBill(attempt_id, billed, seen)
            service = BillService(ledger.operations)
            return settled_or_why_not(
                list(service.settle([bill], by=by, may_exceed_hold=may_exceed))
            )

        then = self.link("/unknown/one", attempt=attempt_id)
        await self.change(change, then=then, done=settled_words)


def filter_of(given: Mapping[str, str]) -> UnknownFilter:
    """Read the filter of an address."""
    org_id, provider, model = (read_optional_name(given[name], name) for name in FILTERS[:3])
    since, until = (read_day(given[name]) for name in FILTERS[3:])
    return UnknownFilter(org_id or None, provider or None, model or None, since, end_of(until))


def read_tick(tick: str) -> tuple[UUID, int]:
    """Read the box of a bill: its attempt, and what it posted when the page was shown."""
    attempt_id, _, seen = tick.partition(" ")
    return read_attempt(attempt_id), read_nano_usd(seen)


def why_unknown(bill: UnknownBill) -> str:
    """Why a bill is unknown."""
    if bill.anomalies:
        return ", ".join(bill.anomalies)
    try:
        fields = json.loads(bill.error or "{}")
    except ValueError:
        fields = {}
    code = fields.get("code") if isinstance(fields, dict) else None
    return str(code or bill.status)


def settled_or_why_not(answers: list[SettledByHand]) -> list[SettledByHand]:
    """
    The answers, if one of them at least was done.

    Raises:
        InvalidRequest: None was; says why.
    """
    if answers and not any(answer.outcome.is_done for answer in answers):
        raise InvalidRequest("; ".join(sorted({WHY_NOT[answer.outcome] for answer in answers})))
    return answers


def settled_words(answers: Sequence[SettledByHand]) -> str:
    """What a settlement did."""
    done = [a for a in answers if a.outcome is HandOutcome.SETTLED]
    freed = sum((a.posted_before_nano_usd or 0) - (a.posted_nano_usd or 0) for a in done)
    said = [
        f"{words.number(len(done))} settled; {usd(abs(freed))} {'given back' if freed >= 0 else 'more'}."
    ]
    for outcome in HandOutcome:
        count = sum(a.outcome is outcome for a in answers)
        if count and outcome is not HandOutcome.SETTLED:
            said.append(f"{words.number(count)} not: {WHY_NOT[outcome]}.")
    return " ".join(said)
