"""
A row that takes no change, for a reason nobody foresaw, stands alone: those behind it are served.

A CHECK that is added here is the reason. NOT VALID ones do not mind the row, but every change of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, text

from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.ledger import DueKind
from callgate.domain.reports import By, CallFilter
from tests.support.ledger_under_test import (
    LEASE_S,
    LIMIT,
    LINK,
    LedgerUnderTest,
    a_loss,
    a_reserve,
    a_success,
    an_answer,
)
from tests.support.process_leases import DEAD, LENGTH_S, REAPER, claimed_by, pass_time

POISON = "model <> 'poison'"


@contextmanager
def a_check(engine: Engine, table: str, condition: str) -> Iterator[None]:
    """Have a table refuse what does not fulfil a condition from now on."""
    with engine.begin() as connection:
        connection.execute(
            text(
                f"ALTER TABLE {table} ADD CONSTRAINT foreseen_by_nobody CHECK ({condition}) NOT VALID"
            )
        )
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT foreseen_by_nobody"))


def poisoned_first(ledger: LedgerUnderTest, count: int = 3) -> list[CallKey]:
    """Waiting calls that fell due before all others."""
    keys = [ledger.waiting(f"poison {n}", model="poison").key for n in range(count)]
    ledger.age(5)
    return keys


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_call_that_takes_no_change_stops_none_behind_it(
    ledger: LedgerUnderTest, postgres_engine: Engine, limit: int
) -> None:
    """It cannot even be put off; so it is passed over each time."""
    poisoned_first(ledger)
    fine = [ledger.waiting(f"fine {n}").key for n in range(2)]
    ledger.age(5)

    with a_check(postgres_engine, "llm_call", POISON):
        taken = [due.key for _ in range(3) for due in ledger.due(limit=limit)]

    assert taken == fine


def test_a_call_that_cannot_be_taken_is_deferred_for_an_hour(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Where the row takes that; so it is not looked at all the time."""
    (key,) = poisoned_first(ledger, 1)
    fine = ledger.waiting("fine").key
    ledger.age(5)

    with a_check(postgres_engine, "llm_call", f"{POISON} OR state <> 'queued'"):
        taken = ledger.due_kinds()

    assert taken == [(DueKind.PUBLISH, fine)]
    view = ledger.view(key)
    assert view.state is CallState.WAITING
    assert view.due_at is not None
    assert 3_590 < (view.due_at - ledger.now()).total_seconds() < 3_610
    ledger.age(3_620)
    assert ledger.due_kinds() == [(DueKind.PUBLISH, key)]


def test_an_expired_attempt_that_cannot_be_taken_stops_none_behind_it(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Its neighbours' workers vanished too, and somebody must find out."""
    ledger.running("poison", model="poison")
    fine = ledger.running("fine")
    ledger.age(LEASE_S + 1)

    with a_check(postgres_engine, "llm_call", POISON):
        taken = ledger.due_kinds()

    assert taken == [(DueKind.EXPIRED, fine.key)]


def test_a_lease_is_released_though_a_call_of_it_takes_no_change(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """The dead worker's other calls are recovered at once; that one keeps its deadline."""
    ledger.leases.renew(DEAD, LENGTH_S)
    refs = [claimed_by(ledger, DEAD, name) for name in ("poison", "fine")]
    poison = "call_id <> '%s'" % refs[0].key.call_id  # noqa: UP031 - a condition of SQL
    pass_time(ledger, LENGTH_S, REAPER)

    with a_check(postgres_engine, "llm_call", poison):
        gone, taken = ledger.leases.expire(REAPER), [due.key for due in ledger.due()]

    assert gone == [DEAD]
    assert taken == [refs[1].key]


def test_a_lost_message_of_a_call_that_takes_no_change_stops_none_behind_it(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """A sweep counts each call it finds; this one it cannot."""
    ledger.queued("poison", model="poison")
    ledger.age(5)
    fine = ledger.queued("fine")
    ledger.age(5)

    with a_check(postgres_engine, "llm_call", POISON):
        batch = ledger.ledger.take_lost_messages(limit=1, queued_before=ledger.now())

    assert [due.key for due in batch.items] == [fine]


def test_a_late_answer_that_cannot_be_taken_stops_nothing(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Neither other late answers nor calls that are due."""
    late = [ledger.running("poison", model="poison"), ledger.running("fine")]
    for ref in late:
        ledger.settle(a_loss(ref, next_state=CallState.DEAD))
        ledger.record(an_answer(ref))
    ledger.age(11)

    with a_check(postgres_engine, "ai_call_log", POISON):
        taken = ledger.due_kinds()

    assert taken == [(DueKind.SETTLE, late[1].key)]


def test_a_call_that_cannot_be_lent_stops_no_links(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Of its own organisation neither."""
    poison, fine = (ledger.rejected(c, link=LINK) for c in ("poison", "fine"))

    with a_check(postgres_engine, "undelivered_call", f"call_id <> '{poison.call_id}'"):
        taken = [link.key for link in ledger.links()]

    assert taken == [fine]
    assert [link.key for link in ledger.links()] == [poison]


def test_an_outcome_of_a_link_that_cannot_be_kept_stands_alone(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Its neighbours in the batch are kept, and do not come again."""
    keys = [ledger.rejected(f"call {n}", link=LINK) for n in range(5)]
    links = ledger.links()
    poison = links[2].submission_id

    with a_check(postgres_engine, "submission", f"submission_id <> '{poison}'"):
        ledger.deliver(*(link.submission_id for link in links))
    ledger.ledger.keep_link_outcomes([LinkOutcome(poison, "\x00 \n" + "x" * 10_000, 5.0)])

    (failure,) = ledger.operations.link_failures(links[2].key, limit=10)
    assert failure.why == "   " + "x" * 497
    ledger.age(11)
    assert [link.submission_id for link in ledger.links()] == [poison]
    assert len(keys) == 5


def test_a_row_in_words_of_another_version_fails_nobody_elses_read(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Its neighbours are read, and it is as good as none."""
    keys = [ledger.queued(content) for content in "abc"]
    change = text("UPDATE llm_call SET state = 'pondering', due_at = now() WHERE call_id = :id")
    with postgres_engine.begin() as connection:
        connection.execute(text("ALTER TABLE llm_call DROP CONSTRAINT ck_llm_call_state"))
    try:
        with postgres_engine.begin() as connection:
            connection.execute(change, {"id": keys[1].call_id})

        first, strange, third = ledger.ledger.read(keys)
    finally:
        with postgres_engine.begin() as connection:
            connection.execute(text("DELETE FROM llm_call WHERE state = 'pondering'"))
            connection.execute(
                text(
                    "ALTER TABLE llm_call ADD CONSTRAINT ck_llm_call_state CHECK"
                    " (state IN ('queued', 'running', 'waiting', 'succeeded', 'dead', 'rejected'))"
                )
            )

    assert strange is None
    assert first is not None
    assert third is not None
    assert [first.key, third.key] == [keys[0], keys[2]]


def test_nobody_waits_for_a_call_that_a_client_holds(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """An open transaction of its own: due and delivery pass it over, and come back to it."""
    held, other = ledger.rejected("held", link=LINK), ledger.rejected("other", link=LINK)
    waiting = ledger.waiting("waiting")
    ledger.age(1)
    lock = "SELECT 1 FROM llm_call WHERE call_id = :id FOR UPDATE"
    lock_links = "SELECT 1 FROM undelivered_call WHERE call_id = :id FOR UPDATE"
    with postgres_engine.begin() as attacker:
        for key in (held, waiting.key):
            attacker.execute(text(lock), {"id": key.call_id})
        attacker.execute(text(lock_links), {"id": held.call_id})

        due, links = ledger.due(), ledger.links()
        ledger.deliver(*(link.submission_id for link in links))

    assert due == ()
    assert [link.key for link in links] == [other]
    assert ledger.due_kinds() == [(DueKind.PUBLISH, waiting.key)]
    assert [link.key for link in ledger.links()] == [held]


def test_nobody_waits_for_a_submission_that_a_client_holds(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Its link is published again, until it lets go; others are told once."""
    held, other = ledger.rejected("held", link=LINK), ledger.rejected("other", link=LINK)
    with postgres_engine.begin() as attacker:
        lock = "SELECT 1 FROM submission WHERE call_id = :id FOR UPDATE"
        attacker.execute(text(lock), {"id": held.call_id})
        links = ledger.links()
        ledger.deliver(*(link.submission_id for link in links))
    ledger.age(11)

    assert {link.key for link in links} == {held, other}
    assert [link.key for link in ledger.links()] == [held]


def test_a_link_is_told_of_a_call_that_a_client_holds(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Delivery locks no call; a client that holds its own cannot even delay its own links."""
    key = ledger.rejected("held", link=LINK)
    with postgres_engine.begin() as attacker:
        lock = "SELECT 1 FROM llm_call WHERE call_id = :id FOR UPDATE"
        attacker.execute(text(lock), {"id": key.call_id})

        (link,) = ledger.links()
        ledger.deliver(link.submission_id)

    assert ledger.links(keys=[key]) == []


def test_a_waiter_that_cannot_be_released_stops_no_settlement(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Nor others that wait for the same headroom: it is passed over."""
    holder = ledger.answered("holder", hold_nano_usd=LIMIT)
    poison, fine = ledger.queued("poison", model="poison"), ledger.queued("fine")
    ledger.reserve(a_reserve(poison), a_reserve(fine))

    with a_check(postgres_engine, "llm_call", POISON):
        (settled,) = ledger.settle(a_success(holder, 10))
        taken = ledger.due_kinds()

    assert (settled.is_applied, settled.has_freed_waiters) == (True, True)
    assert taken == [(DueKind.PUBLISH, fine)]


def test_a_call_that_cannot_be_released_stops_no_settlement_and_no_due_query(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """It waits for a breaker that is closed again; those of other breakers are released."""
    for model in ("poison", "good"):
        by = By("tests", "to see")
        ledger.operations.set_breaker("openai", model, "", is_open=True, by=by)
        ledger.reserve(a_reserve(ledger.queued(model, model=model)))
    with a_check(postgres_engine, "llm_call", POISON):
        for model in ("poison", "good"):
            ledger.operations.set_breaker("openai", model, "", is_open=False, by=by)
        due = ledger.due()
        settled = ledger.settle(a_success(ledger.answered("another")))

    assert [d.key for d in due] == [
        a.key for a in ledger.operations.calls(CallFilter(model="good"), limit=10)
    ]
    assert settled[0].is_applied
