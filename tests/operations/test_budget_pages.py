"""Pages of budgets, freezes and pauses in a real Flower: what they show, and what operators change there."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

import pytest

from callgate.domain.budget_states import BudgetName
from callgate.domain.budgets import NANO_PER_USD, ORG_SCOPE, Window
from callgate.domain.errors import OrganisationFrozen
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.requests import OnBudget
from tests.contract.money_steps import refused
from tests.support.ledger_under_test import LedgerUnderTest
from tests.support.operators_pages import PagesUnderTest
from tests.support.visitor import Form, Seen, Visitor

USD = NANO_PER_USD
HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;; --"
WHY = "they asked for it"


def with_budget(ledger: LedgerUnderTest, org_id: str, limit: int = 10 * USD) -> BudgetName:
    """A budget of a new organisation."""
    ledger.set_budget(limit, org_id=org_id)
    return BudgetName(org_id, ORG_SCOPE, Window.DAY)


def a_query(**words: object) -> str:
    """The query of an address."""
    return urlencode(words)


def limit_of(ledger: LedgerUnderTest, name: BudgetName) -> int:
    """The limit of a budget now."""
    state = ledger.operations.budget_state(name)
    assert state is not None
    return state.figures.limit_nano_usd


def last_action(ledger: LedgerUnderTest, action: str) -> tuple[str, str, str | None]:
    """Who changed something like that last, why, and whose it was."""
    found = next(a for a in ledger.operations.actions(limit=50) if a.action == action)
    return found.by.operator, found.by.reason, found.org_id


def test_a_budget_is_shown_with_what_waits_and_when_it_is_used_up(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """Limit, spent, held, headroom, rate; in the list and on its own page."""
    with_budget(ledger, "shown")
    ledger.succeeded("paid", 2 * USD, org_id="shown", hold_nano_usd=3 * USD)
    ledger.running("holds", 1 * USD, org_id="shown")
    refused(ledger, ledger.queued("waits", org_id="shown"), 8 * USD, OnBudget.WAIT)

    listed = ann.get("/budgets?org=shown")
    assert (listed.status, "$2.00 spent and $1.00 held of $10.00" in listed.text) == (200, True)
    for word in ("$7.00", "30 %", "in ", "In flight 1", "They hold $1.00", "Waiting 1"):
        assert word in listed.words, word
    one = ann.get("/budgets/one?org=shown&scope=org&window=day")
    for word in ("Headroom of $10.00 $7.00", "Calls that wait for it 1", "would hold $8.00"):
        assert word in one.words, word
    assert "shown" in ann.get("/budgets").words
    assert "shown" in ann.get("/budgets?order=name").words


def test_a_limit_is_changed_after_a_look_at_what_that_lets_run(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """Old and new, who waits and would run; then the change, its reason and its row."""
    name = with_budget(ledger, "raised")
    ledger.succeeded("paid", 9 * USD, org_id="raised", hold_nano_usd=9 * USD)
    key = ledger.queued("waits", org_id="raised")
    refused(ledger, key, 5 * USD, OnBudget.WAIT)
    one = ann.get("/budgets/one?org=raised&scope=org&window=day")

    looked = ann.submit(one, "See what it changes", limit="20.5")

    assert "$10.00 → $20.50 ; headroom then: $11.50" in looked.words
    assert "1 call waits for money here, holding $5.00 at most. 1 of them would run" in looked.words
    assert limit_of(ledger, name) == 10 * USD
    done = ann.submit(looked, "Set the limit to $20.50", reason=WHY)
    assert "The limit of raised, all calls, per day is $20.50; it was $10.00." in done.alerts
    assert limit_of(ledger, name) == 20_500_000_000
    assert last_action(ledger, "budget.set") == ("ann", WHY, "raised")
    assert ledger.requeued(key) == key


def test_a_stale_page_and_a_second_operator_change_nothing(
    pages: PagesUnderTest, ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """The second hears what the limit is now; a form that is sent twice counts once."""
    name = with_budget(ledger, "contested")
    address = "/budgets/one?org=contested&scope=org&window=day&limit={}"
    ben = pages.visitor("ben")
    hers, his = ann.get(address.format(20)), ben.get(address.format(30))

    first = ann.submit(hers, "Set the limit to $20.00", reason=WHY)
    second = ben.submit(his, "Set the limit to $30.00", reason=WHY)
    again = ann.submit(hers, "Set the limit to $20.00", reason=WHY)

    assert "is $20.00" in first.alerts
    assert "Nothing was changed: the limit is $20.000000 now" in second.alerts
    assert "sent before" in again.alerts
    assert limit_of(ledger, name) == 20 * USD
    assert "$20.00 → $30.00" in ben.get(address.format(30)).words


def test_a_new_budget_of_a_call_type(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """From the list, with a time zone; an unknown zone makes none."""
    one = ann.submit(
        ann.get("/budgets"), "Open", org="fresh", call_type="extraction", window="month"
    )
    assert "There is no such budget yet." in one.words
    name = BudgetName("fresh", "call_type:extraction", Window.MONTH)

    for zone, said in (("Mars", "'Mars' is no time zone"), ("Europe/Berlin", "it was not set")):
        looked = ann.submit(one, "See what it changes", limit="$1,000", timezone=zone)
        done = ann.submit(looked, "Set the limit to $1,000.00", reason=WHY)
        assert said in done.alerts.replace("&#x27;", "'").replace("&#39;", "'")
    state = ledger.operations.budget_state(name)
    assert state is not None
    assert (limit_of(ledger, name), state.figures.timezone) == (1_000 * USD, "Europe/Berlin")


@pytest.mark.parametrize("limit", ["-1", "1e30", "ten", "0.0000000001", "", "NaN", "1_0"])
def test_what_is_no_amount_is_refused(ann: Visitor, limit: str) -> None:
    """With a page that says so."""
    page = ann.get("/budgets/one?org=acme&scope=org&window=day")

    seen = ann.submit(page, "See what it changes", limit=limit)

    assert seen.status == (200 if limit == "" else 400)
    assert limit == "" or "is no amount of USD" in seen.words


@pytest.mark.parametrize(
    "path",
    [
        "/budgets/one?org=acme&window=week",
        "/budgets/one?org=" + "a" * 129,
        "/budgets/one?org=acme&scope=" + "s" * 200,
        "/pauses?look=1",
        "/pauses?look=1&freeze=1&model=m",
        "/limits/breaker?provider=sim",
        "/unknown?since=yesterday",
        "/unknown/one?attempt=7",
        "/unknown?after_at=x&after_id=y",
    ],
)
def test_what_a_page_cannot_mean_is_said(ann: Visitor, path: str) -> None:
    """Not a traceback, and no page without a reason."""
    seen = ann.get(path)

    assert seen.status == 400
    assert "This did not work" in seen.words


def test_an_organisation_is_frozen_in_view_of_what_that_stops(
    ledger: LedgerUnderTest, ann: Visitor, pages: PagesUnderTest
) -> None:
    """From its budgets: counts first, then the freeze, then its end; each has a row."""
    with_budget(ledger, "runaway")
    ledger.running("holds", 1 * USD, org_id="runaway")
    ledger.queued("queued", org_id="runaway")
    page = ann.get("/budgets?org=runaway")
    assert "In flight 1 They hold $1.00 Queued 1 Waiting 0" in page.words

    frozen = ann.submit(page, "Freeze", reason=WHY)

    assert "Frozen: organisation runaway. What is in flight ends as usual." in frozen.alerts
    assert "Frozen by ann at" in frozen.words
    assert "runaway frozen" in ann.get("/budgets?order=name").words
    with pytest.raises(OrganisationFrozen):
        ledger.queued("more", org_id="runaway")
    assert last_action(ledger, "freeze") == ("ann", WHY, "runaway")
    ben = pages.visitor("ben")
    late = ben.submit(page, "Freeze", once=ben.get("/budgets?org=shown").form("Freeze").fields["once"],
                      _xsrf=ben.get("/budgets?org=shown").form("Freeze").fields["_xsrf"], reason="me too")  # fmt: skip
    assert "Nothing was changed: organisation runaway is frozen already" in late.alerts
    thawed = ann.submit(frozen, "Unfreeze", reason="it is well")
    assert "Unfrozen: organisation runaway." in thawed.alerts
    assert ledger.operations.pauses() == []
    assert ledger.queued("more", org_id="runaway")


def test_calls_are_paused_and_resumed(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """By any names, or all of them; what that concerns is shown first."""
    with_budget(ledger, "pausing")
    ledger.running("holds", 1 * USD, org_id="pausing", call_type="dreams")
    looked = ann.submit(ann.get("/pauses"), "See what it concerns", call_type="dreams")
    assert "Pause call type dreams would concern" in looked.words
    assert "In flight 1 They hold $1.00" in looked.words

    paused = ann.submit(looked, "Pause", reason=WHY)
    assert "Paused: call type dreams." in paused.alerts
    every = ann.submit(
        ann.submit(paused, "See what it concerns", all="1"), "Pause", reason="an incident"
    )
    assert "Paused: everything." in every.alerts
    assert [p.key for p in ledger.operations.pauses()] == [
        PauseKey(call_type="dreams"),
        PauseKey(),
    ]
    on = ann.submit(every, "Resume", reason=WHY)
    assert "Resumed: everything. Still paused: call type dreams" in on.alerts
    assert "Resumed: call type dreams." in ann.submit(on, "Resume", reason=WHY).alerts
    assert ledger.operations.pauses() == []


def test_a_pause_that_began_again_is_not_ended_from_an_old_page(
    ledger: LedgerUnderTest, ann: Visitor
) -> None:
    """Its reason is another one."""
    key = PauseKey(model="o9")
    ledger.operations.pause(key, by=By("ben", "it leaks"))
    old = ann.get("/pauses")
    ledger.operations.pause(key, by=By("ben", "it leaks again"))

    late = ann.submit(old, "Resume", reason=WHY)

    assert "Nothing was changed: model o9 was paused again meanwhile" in late.alerts
    assert "it leaks again" in late.words
    ledger.operations.resume(key, by=By("ben", "done"))


@pytest.mark.parametrize(
    ("path", "button", "changes"),
    [
        ("/budgets/one?org=acme&scope=org&window=day&limit=5", "Set the limit to $5.00", {}),
        ("/budgets?org=acme", "Freeze", {}),
        ("/pauses?look=1&org=acme", "Pause", {}),
        ("/limits/breaker?provider=sim&model=sim-1", "Open", {}),
    ],
)
def test_a_viewer_changes_nothing_even_with_an_operators_form(
    pages: PagesUnderTest, ledger: LedgerUnderTest, path: str, button: str, changes: dict[str, str]
) -> None:
    """Her own form is disabled and says why; what she sends all the same is refused."""
    ann, vera = pages.visitor("ann"), pages.visitor("vera")
    hers, his = vera.get(path).form(button), ann.get(path).form(button)
    assert not hers.is_enabled
    assert his.is_enabled
    assert "vera has no role operator" in vera.get(path).words
    before = ledger.operations.actions(limit=1)

    token = {"_xsrf": hers.fields["_xsrf"]}
    for form in (hers, Form(his.action, "post", False, {**his.fields, **token})):
        assert vera.send(form, reason=WHY).status == 403
    # Nor an operator with another one's token, without the token of the browser, or without a login.
    ben = pages.visitor("ben")
    xsrf = ben.get(path).form(button).fields["_xsrf"]
    assert ben.send(his, _xsrf=xsrf, reason=WHY).status == 403
    assert ann.send(his, _xsrf=None, reason=WHY).status == 403
    assert Visitor(pages.port, None).send(his, reason=WHY).status in (401, 403)
    assert ledger.operations.actions(limit=1) == before
    assert ledger.operations.pauses() == []


def test_hostile_names_are_text(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """In lists, links and forms; and the organisation can be stopped."""
    with_budget(ledger, HOSTILE, USD)
    refused(
        ledger, ledger.queued("waits", org_id=HOSTILE, call_type=HOSTILE), 2 * USD, OnBudget.WAIT
    )
    listed = ann.get("/budgets?order=name")
    assert HOSTILE not in listed.text
    assert escape(HOSTILE, quote=False).split("'")[0] in listed.text
    found: list[Seen] = []
    for path in (
        "/budgets?" + a_query(org=HOSTILE),
        "/budgets/one?" + a_query(org=HOSTILE, scope="org", window="day", limit="5"),
        "/pauses?" + a_query(look=1, org=HOSTILE, call_type=HOSTILE),
        "/limits/breaker?" + a_query(provider=HOSTILE, model=HOSTILE, org=HOSTILE),
        "/unknown?" + a_query(org=HOSTILE, model=HOSTILE),
    ):
        seen = ann.get(path)
        assert (seen.status, "<img src=x" in seen.text, "onerror" in seen.text) == (
            200,
            False,
            True,
        )
        found.append(seen)

    frozen = ann.submit(found[0], "Freeze", reason=HOSTILE)

    assert "<img src=x" not in frozen.text
    assert [p.key.org_id for p in ledger.operations.pauses()] == [HOSTILE]
    assert "<img src=x" not in ann.get("/actions").text
    ann.submit(frozen, "Unfreeze", reason=HOSTILE)
    assert ledger.operations.pauses() == []


def test_a_reason_is_needed(ledger: LedgerUnderTest, ann: Visitor) -> None:
    """A blank one is none."""
    page = ann.get("/budgets?org=acme")

    seen = ann.submit(page, "Freeze", reason="  ")

    assert "Nothing was changed: say why." in seen.alerts
    assert ledger.operations.pauses() == []
