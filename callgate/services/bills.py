"""Settle attempts by hand: read the provider's bills, look at what is posted now, post the difference."""

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
    BILLED_MAX_USD,
    HandOutcome,
    SettleByHand,
    SettledByHand,
    UnknownBill,
)

COLUMNS = ["attempt_id", "billed_usd"]
BILLS_MAX = 10_000
"""Bills in one file."""
BILLS_MAX_BYTES = 1_000_000
"""Size of one file."""
BATCH_MAX = 200
"""Attempts per transaction."""
ERRORS_SHOWN_MAX = 20
"""Invalid lines that an error names."""


@dataclass(frozen=True, slots=True)
class EnteredBill:
    """The provider's bill for one attempt, as an operator entered it."""

    attempt_id: UUID
    billed_nano_usd: int
    seen_posted_nano_usd: int | None = None
    """Settle only if this amount is posted now. None: any amount, unless the attempt was settled by hand before."""


class BillService:
    """Settles attempts by their bills."""

    def __init__(self, operations: OperationsPort) -> None:
        self._operations = operations

    def settle(
        self,
        bills: Sequence[EnteredBill],
        *,
        by: By,
        may_exceed_hold: bool = False,
        dry_run: bool = False,
    ) -> Iterator[SettledByHand]:
        """
        Settle bills in their order, a batch at a time; each bill has its own answer.

        Raises:
            LedgerUnavailable: Earlier batches stay settled; settling all bills again is safe.
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
                is_sent = seen[b.attempt_id] is not None
                yield next(answers) if is_sent else _settled_before(posted[b.attempt_id])


def read_bills(text: str) -> list[EnteredBill]:
    """
    Read a file of bills: CSV whose first line is `attempt_id,billed_usd`.

    Raises:
        InvalidBills: Lines are invalid; the message names them by number. None of the bills may be settled.
    """
    bills: dict[UUID, EnteredBill] = {}
    line_of: dict[UUID, int] = {}
    errors = []
    for line, fields in _lines(text):
        try:
            bill = _bill(fields)
        except ValueError as exc:
            errors.append(f"line {line}: {exc}")
            continue
        if first := line_of.get(bill.attempt_id):
            errors.append(f"line {line}: attempt {bill.attempt_id} is already in line {first}")
        line_of.setdefault(bill.attempt_id, line)
        bills[bill.attempt_id] = bill
    if errors:
        more = len(errors) - ERRORS_SHOWN_MAX
        shown = errors[:ERRORS_SHOWN_MAX] + ([f"and {more} more lines"] if more > 0 else [])
        raise InvalidBills("nothing was settled: " + "; ".join(shown))
    return list(bills.values())


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines after the column names, with their numbers; empty lines are left out."""
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
        raise InvalidBills(
            f"nothing was settled: line {reader.line_num}: not CSV ({exc})"
        ) from None
    if names is None:
        raise InvalidBills("the file is empty")


def _require_names(names: list[str]) -> None:
    if names != COLUMNS:
        raise InvalidBills(f"the first line must be {','.join(COLUMNS)}")


def _bill(fields: list[str]) -> EnteredBill:
    """
    Read one line.

    Raises:
        ValueError: The line is invalid.
    """
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} fields instead of {len(COLUMNS)}")
    attempt_id, billed_usd = fields
    return EnteredBill(
        attempt_uuid(attempt_id.strip()), nano_usd_of(billed_usd, usd_max=BILLED_MAX_USD)
    )


def attempt_uuid(text: str) -> UUID:
    """
    Read an attempt's id.

    Raises:
        ValueError: The text is not an id.
    """
    try:
        return UUID(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not an attempt id") from None


def _seen(bill: EnteredBill, posted: UnknownBill | None) -> int | None:
    """The amount that must be posted now; None if the attempt was settled by hand at another amount."""
    if bill.seen_posted_nano_usd is not None:
        return bill.seen_posted_nano_usd
    if posted is None:
        # The ledger will say why it refuses the bill.
        return 0
    is_other = posted.posted_nano_usd != bill.billed_nano_usd
    return None if posted.settled_by_hand_at and is_other else posted.posted_nano_usd


def _settled_before(posted: UnknownBill) -> SettledByHand:
    amount = posted.posted_nano_usd
    return SettledByHand(posted.attempt_id, HandOutcome.CHANGED, amount, amount)
