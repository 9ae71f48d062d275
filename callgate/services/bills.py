"""Settle by hand what a provider billed: read the bills, look at what is posted now, post the difference."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from callgate.domain.budgets import nano_usd_of
from callgate.domain.errors import InvalidBills
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import By
from callgate.domain.unknown import (
    BILLED_USD_MAX,
    HandOutcome,
    SettleByHand,
    SettledByHand,
    UnknownBill,
)

COLUMNS = ["attempt_id", "billed_usd"]
BILLS_MAX = 10_000
"""Lines of one file."""
BILLS_BYTES_MAX = 1_000_000
"""Of one file."""
BATCH_MAX = 200
"""Attempts per transaction."""
COMPLAINTS_MAX = 20
"""Wrong lines that are named."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What the provider billed for one attempt."""

    attempt_id: UUID
    billed_nano_usd: int
    seen_posted_nano_usd: int | None = None
    """What it was seen to post. None: whatever it posts now, unless somebody settled it by hand before."""


class HandService:
    """Settles bills by hand."""

    def __init__(self, operations: OperationsPort) -> None:
        self._operations = operations

    def settle(
        self, bills: Sequence[Bill], *, by: By, may_exceed_hold: bool = False, dry_run: bool = False
    ) -> Iterator[SettledByHand]:
        """
        Settle bills in their order, a batch at a time; each is answered for itself.

        Raises:
            LedgerUnavailable: What was answered before stays settled; settling all of it again is safe.
        """
        for start in range(0, len(bills), BATCH_MAX):
            batch = bills[start : start + BATCH_MAX]
            posted = self._operations.bills([bill.attempt_id for bill in batch])
            seen = {bill.attempt_id: _seen(bill, posted.get(bill.attempt_id)) for bill in batch}
            settles = [
                SettleByHand(b.attempt_id, seen_nano_usd, b.billed_nano_usd, may_exceed_hold)
                for b in batch
                if (seen_nano_usd := seen[b.attempt_id]) is not None
            ]
            answers = iter(self._operations.settle_by_hand(settles, by=by, dry_run=dry_run))
            for b in batch:
                is_asked = seen[b.attempt_id] is not None
                yield next(answers) if is_asked else _settled_before(posted[b.attempt_id])


def read_bills(text: str) -> list[Bill]:
    """
    Read a file of bills: CSV with the columns `attempt_id` and `billed_usd`, and a line of these names.

    Raises:
        InvalidBills: Some lines cannot be meant; they are named by their numbers, and nothing is to be applied.
    """
    bills: dict[UUID, Bill] = {}
    line_of: dict[UUID, int] = {}
    wrong = []
    for line, fields in _lines(text):
        try:
            bill = _bill(fields)
        except ValueError as exc:
            wrong.append(f"line {line}: {exc}")
            continue
        if first := line_of.get(bill.attempt_id):
            wrong.append(f"line {line}: attempt {bill.attempt_id} is in line {first} already")
        line_of.setdefault(bill.attempt_id, line)
        bills[bill.attempt_id] = bill
    if wrong:
        more = len(wrong) - COMPLAINTS_MAX
        told = wrong[:COMPLAINTS_MAX] + ([f"and {more} more lines"] if more > 0 else [])
        raise InvalidBills("nothing was settled: " + "; ".join(told))
    return list(bills.values())


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file behind its names, with their numbers; empty ones are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] | None = None
    count = 0
    try:
        for fields in reader:
            if not "".join(fields).strip():
                continue
            if names is None:
                names = [field.strip() for field in fields]
                _require_names(names)
                continue
            if (count := count + 1) > BILLS_MAX:
                raise InvalidBills(f"the file has more than {BILLS_MAX} bills: split it")
            yield reader.line_num, fields
    except csv.Error as exc:
        raise InvalidBills(f"nothing was settled: line {reader.line_num}: no CSV ({exc})") from None
    if names is None:
        raise InvalidBills("the file is empty")


def _require_names(names: list[str]) -> None:
    if names != COLUMNS:
        raise InvalidBills(f"the first line must be {','.join(COLUMNS)}")


def _bill(fields: list[str]) -> Bill:
    """
    Read one line.

    Raises:
        ValueError: It cannot be meant.
    """
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} fields where {len(COLUMNS)} must be")
    attempt_id, billed_usd = fields
    return Bill(attempt_uuid(attempt_id.strip()), nano_usd_of(billed_usd, usd_max=BILLED_USD_MAX))


def attempt_uuid(text: str) -> UUID:
    """
    Read an attempt's id.

    Raises:
        ValueError: It is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is no attempt id") from None


def _seen(bill: Bill, posted: UnknownBill | None) -> int | None:
    """What to compare with; None if that must be said: somebody settled it by hand, at another amount."""
    if bill.seen_posted_nano_usd is not None:
        return bill.seen_posted_nano_usd
    if posted is None:
        # The ledger says why it takes none.
        return 0
    is_other = posted.posted_nano_usd != bill.billed_nano_usd
    return None if posted.settled_by_hand_at and is_other else posted.posted_nano_usd


def _settled_before(posted: UnknownBill) -> SettledByHand:
    amount = posted.posted_nano_usd
    return SettledByHand(posted.attempt_id, HandOutcome.CHANGED, amount, amount)
