"""Several rules and sources of limits at once, calls of different sizes, and the number that is under way."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.limits import DAY_S, Declaration, Learned, LearnedLimit, LimitRule, Measure
from tests.contract.flow_steps import (
    MODEL,
    WORKER,
    a_rule,
    count_sent,
    declare,
    is_limited,
    prove,
    released,
    sent,
    succeeds,
    tried,
    waits,
)
from tests.support.ledger_under_test import LedgerUnderTest, a_reserve, open_postgres


def test_two_rules_of_the_same_measure(ledger: LedgerUnderTest) -> None:
    """The lower amount counts."""
    declare(ledger, a_rule(10), a_rule(6))
    assert count_sent(ledger, "call", 20) == 3


@pytest.mark.parametrize(
    "rules",
    [
        (a_rule(40), a_rule(10, model="gpt-4o*")),
        (a_rule(10), a_rule(40, model="gpt-4o*")),
    ],
)
def test_patterns_that_overlap(ledger: LedgerUnderTest, rules: tuple[LimitRule, ...]) -> None:
    """The lower amount counts, however often a worker starts."""
    declare(ledger, *rules)
    sent(ledger, "first")
    for _ in range(4):
        declare(ledger, *rules)
        limits = [(limit.model, limit.amount) for limit in ledger.operations.limits()]
        assert limits == [(MODEL, 10)]


def test_a_large_call_among_many_organisations_is_sent(ledger: LedgerUnderTest) -> None:
    """It comes before those of organisations that took more, although it alone needs more than they took."""
    orgs = [f"org{n}" for n in range(10)]
    for org_id in (*orgs, "big"):
        ledger.set_budget(10_000_000, org_id=org_id)
    declare(ledger, a_rule(1_000, measure=Measure.INPUT_TOKENS))
    prove(ledger)
    for n in range(90):
        tried(ledger, ledger.queued(f"call {n}", org_id=orgs[n % 10], input_token_bound=10))
    big = ledger.queued("big", org_id="big", input_token_bound=100)
    assert not isinstance(tried(ledger, big), AttemptRef)

    for hour in range(12):
        ledger.age(3_600)
        prove(ledger)
        sent_now = [key for key in released(ledger) if isinstance(tried(ledger, key), AttemptRef)]
        if big in sent_now:
            return
        for n, key in enumerate(sent_now):
            org_id = ledger.view(key).org_id
            again = ledger.queued(f"{hour}.{n}", org_id=org_id, input_token_bound=10)
            tried(ledger, again)
    pytest.fail("it was never sent")


def test_the_number_under_way_grows_with_need_only(ledger: LedgerUnderTest) -> None:
    """One call a minute needs no more than sixteen places."""
    declare(ledger, cautious=("openai",))
    for n in range(5):
        succeeds(ledger, sent(ledger, f"one {n}"))
        ledger.age(61)
        prove(ledger)
    ledger.age(61)
    prove(ledger)
    assert count_sent(ledger, "burst", 60) == 16


def test_a_block_begins_again_with_sixteen(ledger: LedgerUnderTest) -> None:
    """Also when what was observed is forgotten."""
    ledger.set_budget(10_000)
    declare(ledger, cautious=("openai",))
    is_limited(ledger, sent(ledger, "refused"))
    ledger.age(6)
    (key,) = released(ledger)
    probe = tried(ledger, key)
    assert isinstance(probe, AttemptRef)
    succeeds(ledger, probe)
    ledger.age(700)
    prove(ledger)

    assert count_sent(ledger, "burst", 60) <= 16


def test_a_learned_limit_counts_as_its_provider_does(ledger: LedgerUnderTest) -> None:
    """What was used, if that is declared: the rest comes back."""
    ledger.flow.publish(WORKER, Declaration(counting_used=("openai",)))
    limit = LearnedLimit(Measure.OUTPUT_TOKENS, DAY_S, 1_000, 1_000)
    ledger.flow.learn([Learned("openai", MODEL, "", limit)])
    ledger.age(DAY_S - 10)
    prove(ledger)
    claim = {"output_token_bound": 300}
    ref = sent(ledger, "one", claim=claim)
    key = waits(ledger, "two", claim=claim)
    succeeds(ledger, ref)

    assert released(ledger) == [key]


def test_limits_that_are_removed_meanwhile_refuse_nobody(postgres_engine: Engine) -> None:
    """A declaration without them is published while a claim waits for their rows."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)
        declare(ledger, a_rule(100))
        sent(ledger, "one")
        key: CallKey = ledger.queued("two")
        with postgres_engine.begin() as other:
            other.execute(text("DELETE FROM flow_rule"))
            other.execute(text("DELETE FROM flow_limit"))
            claim = threading.Thread(target=lambda: ledger.reserve(a_reserve(key, 1)))
            claim.start()
            time.sleep(0.5)
        claim.join(20)
        assert ledger.state(key) is CallState.RUNNING
