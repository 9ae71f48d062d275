"""`/unknown/csv`: settle bills from a file, first as a dry run with the outcome of each; and the file to fill in."""

from __future__ import annotations

import csv
import io
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from tornado.web import HTTPError

from callgate.domain.errors import InvalidBills, InvalidRequest
from callgate.domain.reports import By
from callgate.domain.unknown import HandOutcome, SettledByHand
from callgate.services.bills import COLUMNS, BillService, EnteredBill, read_bills
from worker.flower.fields import read_nano_usd
from worker.flower.page import Page
from worker.flower.pages.unknown import FILTERS, WHY_NOT, filter_of, read_tick, settled_words
from worker.flower.people import Role
from worker.flower.source import Ledger

FILE_MAX_BYTES = 400_000
"""Of a file; the server accepts no form of more than a megabyte."""
BILLS_MAX = 5_000
"""Of one file; the command line takes more."""
LISTED_MAX = 5_000
"""Bills in the file to fill in."""
ROWS_SHOWN_MAX = 500
KEPT_MAX = 20
BY_DRY_RUN = By("dry run", "nothing is changed")


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a file."""

    operator: str
    answers: list[SettledByHand]


class Settlements:
    """The newest settlements from files, until this process ends. The action log keeps each bill for good."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Settlement] = OrderedDict()

    def keep(self, token: str, settlement: Settlement) -> None:
        """Keep one."""
        self._kept[token] = settlement
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def get(self, token: str) -> Settlement | None:
        """The settlement of a token."""
        return self._kept.get(token)


class UnknownCsv(Page):
    """A file of bills."""

    path, name, title, tab = "/unknown/csv", "unknown_csv", "Bills from a file", "unknown"

    async def get(self) -> None:
        """Send the file to fill in: the unknown bills that a filter means, without amounts; or show the form."""
        if self.word("download") != "1":
            self.show("unknown_csv.html", bills_max=BILLS_MAX, kib_max=FILE_MAX_BYTES // 1_000)
            return
        which = filter_of({name: self.word(name) for name in FILTERS})
        found = await self.read(
            lambda ledger: ledger.operations.unknown_page(which, limit=LISTED_MAX)
        )
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="unknown-bills.csv"')
        self.set_header("Cache-Control", "no-store")
        self.finish(_csv([COLUMNS, *([str(bill.attempt_id), ""] for bill in found)]))

    async def post(self) -> None:
        """Say what the file would do. Nothing is changed."""
        if why := self.why_not(Role.OPERATOR):
            raise HTTPError(403, "%s", why)
        may_exceed = self.word("more") == "1"
        bills = read_bills(self._text())
        if len(bills) > BILLS_MAX:
            raise InvalidBills(f"the file has more than {BILLS_MAX} bills: split it")

        def dry_run(ledger: Ledger) -> list[SettledByHand]:
            service = BillService(ledger.operations)
            answers = service.settle(bills, by=BY_DRY_RUN, may_exceed_hold=may_exceed, dry_run=True)
            return list(answers)

        answers = await self.application.source.change(dry_run)
        self.show(
            "unknown_dry_run.html",
            answers=answers,
            shown_max=ROWS_SHOWN_MAX,
            why_not=WHY_NOT,
            said=settled_words(answers),
            may_exceed=may_exceed,
            entered=_entered(bills, answers),
        )

    def _text(self) -> str:
        """
        The uploaded file.

        Raises:
            InvalidBills: There is none, it is too long, or it is not text.
        """
        files = self.request.files.get("file", [])
        if len(files) != 1 or not files[0].body:
            raise InvalidBills("choose a file")
        if len(files[0].body) > FILE_MAX_BYTES:
            raise InvalidBills(f"the file has more than {FILE_MAX_BYTES} bytes: split it")
        try:
            return str(files[0].body.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise InvalidBills("the file is not UTF-8") from None


class SettleCsv(Page):
    """`/unknown/csv/settle`: settle what a dry run has said, and show what became of each bill."""

    path, name, title, tab = "/unknown/csv/settle", "unknown_settle", "Settled bills", "unknown"

    async def get(self) -> None:
        """Show what became of a file."""
        kept = self.application.settlements.get(self.word("of"))
        mine = kept if kept and kept.operator == self.person.name else None
        self.show("unknown_settled.html", kept=mine, shown_max=ROWS_SHOWN_MAX, why_not=WHY_NOT)

    async def post(self) -> None:
        """Settle each bill that still posts what the dry run saw."""
        bills = [_bill(line) for line in self.get_body_argument("bills", "").split()[:BILLS_MAX]]
        may_exceed, token = self.word("more") == "1", secrets.token_urlsafe(9)
        kept: list[SettledByHand] = []

        def change(ledger: Ledger, by: By) -> Sequence[SettledByHand]:
            if not bills:
                raise InvalidRequest("the dry run found nothing to settle")
            service = BillService(ledger.operations)
            # What is settled is kept even if the ledger is lost in between.
            kept.extend(service.settle(bills, by=by, may_exceed_hold=may_exceed))
            return kept

        self.application.settlements.keep(token, Settlement(self.person.name, kept))
        await self.change(
            change, then=self.link("/unknown/csv/settle", of=token), done=settled_words
        )


def _entered(bills: Sequence[EnteredBill], answers: Sequence[SettledByHand]) -> str:
    """The bills that the dry run would settle, each with what it posts now; as `_bill` reads them."""
    return "\n".join(
        f"{bill.attempt_id},{answer.posted_before_nano_usd},{bill.billed_nano_usd}"
        for bill, answer in zip(bills, answers, strict=True)
        if answer.outcome is HandOutcome.SETTLED
    )


def _bill(line: str) -> EnteredBill:
    attempt_id, _, amounts = line.partition(",")
    seen, _, billed = amounts.partition(",")
    found: tuple[UUID, int] = read_tick(f"{attempt_id} {seen}")
    return EnteredBill(found[0], read_nano_usd(billed), found[1])


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
