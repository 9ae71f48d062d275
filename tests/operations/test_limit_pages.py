"""Pages of limits, breakers and unknown bills in a real Flower: what they show, and what operators change there."""

from __future__ import annotations

import csv
import io
from uuid import uuid4

import pytest

from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.concurrency import CallsOf, ConcurrencyRule
from callgate.domain.errors import ChangedMeanwhile
from callgate.domain.limits import Declaration
from callgate.domain.reports import By
from callgate.domain.unknown import UnknownFilter
from callgate.services.bills import COLUMNS
from tests.contract.flow_steps import a_rule, sent
from tests.support.ledger_under_test import LedgerUnderTest, a_loss
from tests.support.operators_pages import PagesUnderTest
from tests.support.visitor import Visitor
from worker.flower.pages.unknown_csv import FILE_MAX_BYTES

USD = NANO_PER_USD
WHY = "invoice 7"
BEN = By("ben", "it leaks")


def given_up(ledger: LedgerUnderTest, org_id: str, content: str = "lost") -> AttemptRef:
    """A call of a rich organisation that is dead because nobody knows what became of its request: $1 is posted."""
    if not ledger.operations.budgets(org_id):
        ledger.set_budget(100 * USD, org_id=org_id)
    ref = ledger.running(content, USD, org_id=org_id)
    assert ledger.settle(a_loss(ref, USD, next_state=CallState.DEAD))[0].is_applied
    return ref


def posted(ledger: LedgerUnderTest, ref: AttemptRef) -> int:
    """What an attempt posts now."""
    return ledger.operations.bills([ref.attempt_id])[ref.attempt_id].posted_nano_usd


def unknown_of(ledger: LedgerUnderTest, org_id: str) -> int:
    """How many unknown bills an organisation has."""
    return len(ledger.operations.unknown_page(UnknownFilter(org_id=org_id), limit=99))


def test_limits_are_shown_with_who_waits(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Of providers, and of calls that may run at a time."""
    assert "No limit is known." in ann.get("/limits?provider=nobody").words
    places = (ConcurrencyRule(CallsOf.ORGANISATION, "placed", 3),)
    ledger.flow.publish("host:1:flow", Declaration((a_rule(6, model="o5"),), concurrency=places))
    ledger.set_budget(USD, org_id="placed")
    sent(ledger, "runs", org_id="placed", model="o5")

    seen = ann.get("/limits?model=o5")

    assert seen.status == 200
    assert "openai/o5 the provider's requests per day declared 6" in seen.words
    assert "placed all together 3 1 0" in seen.words


def test_a_breaker_is_opened_and_closed_by_hand(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """With what waits for it; each is a row of the action log."""
    ledger.operations.set_breaker("sim", "o9", "", is_open=False, by=BEN)
    ledger.set_budget(USD, org_id="behind")
    ledger.queued("queued", org_id="behind", provider="sim", model="o9")
    page = ann.get("/limits/breaker?provider=sim&model=o9")
    assert "Queued 1" in page.words

    opened = ann.submit(page, "Open", reason=WHY)
    assert "Open: sim/o9. Its calls wait until it is closed by hand." in opened.alerts
    assert WHY in ann.get("/limits?model=o9").words
    page = ann.get("/limits/breaker?provider=sim&model=o9")
    closed = ann.submit(page, "Close", reason=WHY)

    assert "Closed: sim/o9." in closed.alerts
    (line,) = [b for b in ledger.operations.breakers() if b.model == "o9"]
    assert not line.is_open
    actions = [a for a in ledger.operations.actions(limit=9) if a.subject == "sim/o9"]
    assert [(a.action, a.by.operator) for a in actions][:2] == [
        ("breaker.close", "ann"),
        ("breaker.open", "ann"),
    ]


def test_a_breaker_that_another_operator_changed_stays(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """It was closed, and opened again for another reason."""
    ledger.operations.set_breaker("sim", "o8", "", is_open=True, by=BEN)
    old = ann.get("/limits/breaker?provider=sim&model=o8")
    ledger.operations.set_breaker("sim", "o8", "", is_open=True, by=By("ben", "again"))

    late = ann.submit(old, "Close", reason=WHY)

    assert "Nothing was changed: the breaker has changed" in late.alerts
    (line,) = [b for b in ledger.operations.breakers() if b.model == "o8"]
    assert (line.is_open, line.reason) == (True, "again")


def test_a_provider_that_nobody_knows_has_no_breaker(ann: Visitor) -> None:
    """A name may be misspelt."""
    page = ann.get("/limits/breaker?provider=slim&model=o9")
    assert "check the names" in page.words

    assert "neither the catalogue nor the ledger" in ann.submit(page, "Open", reason=WHY).alerts


def test_unknown_bills_are_listed_with_their_money(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Each, and the sum by model; a filter narrows both."""
    refs = [given_up(ledger, "listed", f"lost {n}") for n in range(3)]

    seen = ann.get("/unknown?org=listed")

    assert all(str(ref.attempt_id) in seen.text for ref in refs)
    assert "openai/gpt-4o-mini 3 $3.00" in seen.words
    assert "worker_lost" in seen.words
    assert "Every bill is known." in ann.get("/unknown?org=listed&until=2026-01-01").words


def test_one_bill_is_settled(ledger: LedgerUnderTest, ann: Visitor, pages: PagesUnderTest) -> None:
    """At what was billed; an old page of another operator changes nothing; more than the hold is not taken unasked."""
    ref = given_up(ledger, "single")
    address = f"/unknown/one?attempt={ref.attempt_id}"
    page, his = ann.get(address), pages.visitor("ben").get(address)

    assert "more than was held" in ann.submit(page, "Settle", billed="1.5", reason=WHY).alerts
    page = ann.get(address)
    both = ann.submit(page, "Settle", billed="1", unbilled="1", reason=WHY)
    assert "enter what was billed, or tick" in both.alerts
    done = ann.submit(ann.get(address), "Settle", billed="0.25", reason=WHY)

    assert "1 settled; $0.750000 given back." in done.alerts
    assert posted(ledger, ref) == USD // 4
    late = pages.visitor("ben")
    late.get(address)
    seen = his.form("Settle").fields["seen"]
    stale = late.submit(late.get(address), "Settle", seen=seen, billed="0.5", reason=WHY)
    assert "Nothing was changed: it was settled by hand, or its answer came late" in stale.alerts
    assert posted(ledger, ref) == USD // 4
    found = next(a for a in ledger.operations.actions(limit=9) if a.action == "unknown.settle")
    assert (found.by, found.org_id, found.subject) == (
        By("ann", WHY),
        "single",
        str(ref.attempt_id),
    )


def test_ticked_bills_are_given_back(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """Those of a dead provider, together; one that has changed meanwhile is left alone, and that is said."""
    refs = [given_up(ledger, "ticked", f"lost {n}") for n in range(2)]
    page = ann.get("/unknown?org=ticked")
    assert "tick the bills" in ann.submit(page, "Give back the ticked ones", reason=WHY).alerts

    page = ann.get("/unknown?org=ticked")
    done = ann.submit(
        page, "Give back the ticked ones", tick=f"{refs[0].attempt_id} {USD}", reason=WHY
    )
    assert "1 settled; $1.000000 given back." in done.alerts
    wrong = ann.submit(
        done, "Give back the ticked ones", tick=f"{refs[1].attempt_id} 7", reason=WHY
    )

    assert "Nothing was changed: it was settled by hand, or its answer came late" in wrong.alerts
    assert [posted(ledger, ref) for ref in refs] == [0, USD]
    (budget,) = ledger.operations.budgets("ticked")
    assert budget.spent_nano_usd == USD


def a_file(*rows: tuple[object, object]) -> bytes:
    """A CSV of bills."""
    return "".join(f"{a},{b}\r\n" for a, b in (COLUMNS, *rows)).encode()


def test_a_file_is_filled_in_looked_at_and_settled(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """The download has the unknown bills; the dry run changes nothing; each bill has its outcome."""
    refs = [given_up(ledger, "filed", f"lost {n}") for n in range(4)]
    blank = ann.get("/unknown/csv?download=1&org=filed").text
    rows = list(csv.reader(io.StringIO(blank)))
    assert rows[0] == COLUMNS
    assert {row[0] for row in rows[1:]} == {str(ref.attempt_id) for ref in refs}
    amounts = ("0.1", "0", "7", "0.2")
    filled = [(ref.attempt_id, amount) for ref, amount in zip(refs, amounts, strict=True)]
    filled.append((uuid4(), "1"))
    form = ann.get("/unknown/csv")

    dry = ann.submit(form, "See what it would do", file=a_file(*filled))

    assert "Nothing was changed. It would be: 3 settled; $2.700000 given back." in dry.alerts
    for word in ("settled", "above_hold", "not_found", "the ledger has no such attempt"):
        assert word in dry.words, word
    assert [posted(ledger, ref) for ref in refs] == [USD] * 4
    assert unknown_of(ledger, "filed") == 4
    # An answer, or another operator, comes before the second step.
    late = ann.get(f"/unknown/one?attempt={refs[3].attempt_id}")
    ann.submit(late, "Settle", billed="0.9", reason=WHY)
    done = ann.submit(dry, "Settle them", reason=WHY)

    assert "2 settled; $1.900000 given back. 1 not:" in done.alerts
    assert done.path.startswith("/unknown/csv/settle?of=")
    assert "changed" in done.words
    assert [posted(ledger, ref) for ref in refs] == [USD // 10, 0, USD, USD * 9 // 10]
    again = ann.submit(dry, "Settle them", reason=WHY)
    assert "sent before" in again.alerts
    settles = [a for a in ledger.operations.actions(limit=50) if a.org_id == "filed"]
    assert [(a.by.operator, a.by.reason) for a in settles] == [("ann", WHY)] * 3


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "choose a file"),
        (b"\xff\xfe", "not UTF-8"),
        (b"attempt,usd\r\n", "the first line must be attempt_id,billed_usd"),
        (a_file(("seven", "1")), "not an attempt id"),
        (a_file((uuid4(), "<b>")), "no amount of USD"),
        (b"x" * (FILE_MAX_BYTES + 1), "split it"),
    ],
    ids=["empty", "no text", "other columns", "no id", "no amount", "too long"],
)
def test_a_file_that_is_wrong_settles_nothing(ann: Visitor, file: bytes, said: str) -> None:
    """It is refused whole, and the page says which line."""
    seen = ann.submit(ann.get("/unknown/csv"), "See what it would do", file=file)

    assert (seen.status, "<b>" in seen.text) == (400, False)
    assert said in seen.words


def test_a_viewer_settles_nothing(pages: PagesUnderTest, ledger: LedgerUnderTest) -> None:
    """Nor does she try a file; what others did from one is not shown to her."""
    ref = given_up(ledger, "viewed")
    ann, vera = pages.visitor("ann"), pages.visitor("vera")
    for path, button in (
        (f"/unknown/one?attempt={ref.attempt_id}", "Settle"),
        ("/unknown?org=viewed", "Give back the ticked ones"),
        ("/unknown/csv", "See what it would do"),
    ):
        hers = vera.get(path).form(button)
        assert not hers.is_enabled
        file = a_file((ref.attempt_id, "0")) if "csv" in path else None
        fields = {"billed": "0", "tick": f"{ref.attempt_id} {USD}", "reason": WHY}
        assert vera.send(hers, file=file, **fields).status == 403
    dry = ann.submit(
        ann.get("/unknown/csv"), "See what it would do", file=a_file((ref.attempt_id, "0"))
    )
    form = dry.form("Settle them")
    form.fields["_xsrf"] = hers.fields["_xsrf"]
    assert vera.send(form, reason=WHY).status == 403
    assert posted(ledger, ref) == USD
    done = ann.submit(dry, "Settle them", reason=WHY)
    assert str(ref.attempt_id) in done.text
    assert "does not know that" in vera.get(done.path).words


def test_changes_that_were_seen_are_compared_in_the_ledger(ledger: LedgerUnderTest) -> None:
    """Not only in the pages."""
    line = ledger.operations.set_breaker("sim", "o7", "", is_open=True, by=BEN)
    ledger.operations.set_breaker("sim", "o7", "", is_open=False, by=BEN)
    with pytest.raises(ChangedMeanwhile):
        ledger.operations.set_breaker(
            "sim", "o7", "", is_open=True, seen_at=line.changed_at, by=BEN
        )
