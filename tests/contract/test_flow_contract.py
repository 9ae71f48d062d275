"""Provider limits are kept: what fits is sent, the rest waits and is woken when it fits."""

from __future__ import annotations

import json

import pytest

from callgate.domain.calls import AttemptKind, AttemptRef, CallKey, CallState, WaitReason
from callgate.domain.ledger import Refused
from callgate.domain.limits import DAY_S, Measure
from tests.contract.flow_steps import (
    MODEL,
    a_rule,
    count_sent,
    declare,
    is_limited,
    learn,
    prove,
    released,
    sent,
    succeeds,
    tried,
    waits,
)
from tests.support.ledger_under_test import ORG, LedgerUnderTest, a_loss


def test_what_does_not_fit_waits_and_holds_nothing(ledger: LedgerUnderTest) -> None:
    """Six requests a day let a burst of three through. The next one waits with the limit's name."""
    declare(ledger, a_rule(6))
    assert count_sent(ledger, "burst", 3) == 3
    before = ledger.figures()
    key = waits(ledger, "one more")

    view = ledger.view(key)
    assert view.wait_reason is WaitReason.RATE_LIMITED
    assert view.error is not None
    assert json.loads(view.error) == {
        "code": "rate_limited",
        "message": f"6 requests per day of openai/{MODEL} are used",
    }
    assert ledger.figures() == before
    assert view.attempt == 0


def test_what_waits_is_woken_when_it_fits(ledger: LedgerUnderTest) -> None:
    """One at a time, as the bucket fills."""
    declare(ledger, a_rule(6))
    count_sent(ledger, "burst", 3)
    keys = []
    for n in range(3):
        ledger.age(1)
        keys.append(waits(ledger, f"later {n}"))
    assert released(ledger) == []

    for key in keys:
        ledger.age(DAY_S / 4 + 10)
        prove(ledger)
        assert released(ledger) == [key]
        assert isinstance(tried(ledger, key), AttemptRef)


def test_no_window_sees_more_than_the_limit(ledger: LedgerUnderTest) -> None:
    """A burst of a full bucket, and all that comes within the same day: never more, and hardly less."""
    declare(ledger, a_rule(40))
    count = count_sent(ledger, "burst", 40)
    for n in range(30):
        waits(ledger, f"later {n}")
    for _ in range(24):
        prove(ledger)
        count += sum(isinstance(tried(ledger, key), AttemptRef) for key in released(ledger))
        ledger.age(3_590)
    assert 39 <= count <= 40


def test_an_unused_limit_releases_no_more_than_fit(ledger: LedgerUnderTest) -> None:
    """The others would be refused, and might pass those that came before them."""
    declare(ledger, a_rule(100, window_s=60))
    assert count_sent(ledger, "burst", 3) == 3
    for n in range(10):
        waits(ledger, f"later {n}")
    ledger.age(62)
    prove(ledger)
    keys = released(ledger)

    assert len(keys) == 3
    assert all(isinstance(tried(ledger, key), AttemptRef) for key in keys)


def test_a_new_call_does_not_overtake_those_that_wait(ledger: LedgerUnderTest) -> None:
    """Also when a place has become free meanwhile."""
    declare(ledger, a_rule(6))
    count_sent(ledger, "burst", 3)
    waits(ledger, "before")
    ledger.age(DAY_S / 4 + 10)
    prove(ledger)

    assert isinstance(tried(ledger, ledger.queued("new")), Refused)


def test_a_request_larger_than_the_limit_is_final(ledger: LedgerUnderTest) -> None:
    """It could never be sent."""
    declare(ledger, a_rule(99, measure=Measure.INPUT_TOKENS))
    refused = tried(ledger, ledger.queued("large"))

    assert isinstance(refused, Refused)
    assert refused.state is CallState.REJECTED
    assert ledger.view(refused.key).end_reason == "exceeds_provider_limit"


def test_a_large_request_passes_a_full_bucket_that_was_unused(ledger: LedgerUnderTest) -> None:
    """More than half of the limit, twice: the second one waits for a whole window."""
    declare(ledger, a_rule(150, measure=Measure.INPUT_TOKENS))
    sent(ledger, "large")
    key = waits(ledger, "large too")
    for _ in range(3):
        ledger.age(DAY_S * 0.32)
        assert released(ledger) == []
    ledger.age(DAY_S / 10)
    prove(ledger)

    assert released(ledger) == [key]
    assert isinstance(tried(ledger, key), AttemptRef)


def test_a_large_request_is_not_overtaken(ledger: LedgerUnderTest) -> None:
    """Smaller ones behind it wait until it fits, although they would fit before."""
    declare(ledger, a_rule(1_000, measure=Measure.INPUT_TOKENS))
    sent(ledger, "half", input_token_bound=480)
    large = waits(ledger, "large", input_token_bound=400)
    small = waits(ledger, "small", input_token_bound=10)
    order: list[CallKey] = []
    for _ in range(24):
        ledger.age(3_600)
        prove(ledger)
        order += [key for key in released(ledger) if isinstance(tried(ledger, key), AttemptRef)]
    assert order == [large, small]


@pytest.mark.parametrize("measure", [Measure.OUTPUT_TOKENS, Measure.TOKENS])
def test_tokens_that_an_answer_may_write_count(ledger: LedgerUnderTest, measure: Measure) -> None:
    """As they are bounded."""
    declare(ledger, a_rule(1_000, measure=measure))
    sent(ledger, "one", claim={"output_token_bound": 300}, input_token_bound=0)
    waits(ledger, "two", claim={"output_token_bound": 300}, input_token_bound=0)


def test_a_provider_that_counts_what_was_used_gets_it_back(ledger: LedgerUnderTest) -> None:
    """Anthropic counts what was written. An answer that is settled gives the rest back."""
    declare(ledger, a_rule(1_000, measure=Measure.OUTPUT_TOKENS, counts_used=True))
    claim = {"output_token_bound": 300}
    ref = sent(ledger, "one", claim=claim)
    key = waits(ledger, "two", claim=claim)
    assert released(ledger) == []
    succeeds(ledger, ref)

    assert released(ledger) == [key]
    assert isinstance(tried(ledger, key, **claim), AttemptRef)


def test_an_unknown_outcome_gives_nothing_back(ledger: LedgerUnderTest) -> None:
    """Its answer may have been written."""
    declare(ledger, a_rule(1_000, measure=Measure.OUTPUT_TOKENS, counts_used=True))
    claim = {"output_token_bound": 300}
    ref = sent(ledger, "one", claim=claim)
    waits(ledger, "two", claim=claim)
    ledger.settle(a_loss(ref))
    assert [due.key for due in ledger.due(expire=False)] == [ref.key]


def test_attempts_under_way_are_counted(ledger: LedgerUnderTest) -> None:
    """A slot is free with the statement that settles."""
    declare(ledger, a_rule(2, measure=Measure.CONCURRENCY, window_s=0))
    refs = [sent(ledger, f"under way {n}") for n in range(2)]
    key = waits(ledger, "next")
    assert released(ledger) == []
    assert succeeds(ledger, refs[0]).has_freed_waiters

    assert released(ledger) == [key]
    assert isinstance(tried(ledger, key), AttemptRef)
    waits(ledger, "after that")


def test_a_slot_of_a_lost_worker_is_free(ledger: LedgerUnderTest) -> None:
    """Its attempt is posted as unknown."""
    declare(ledger, a_rule(1, measure=Measure.CONCURRENCY, window_s=0))
    lost = ledger.lost("lost")
    assert isinstance(tried(ledger, ledger.queued("next")), AttemptRef)
    assert ledger.view(lost.key).state is CallState.WAITING


def test_limits_are_those_of_a_key(ledger: LedgerUnderTest) -> None:
    """An organisation with its own key has limits of its own."""
    for credential in (ORG, "bolt"):
        prove(ledger, credential=credential)
    declare(ledger, a_rule(2), a_rule(4, credential="*"))
    assert count_sent(ledger, "shared", 10) == 1
    assert count_sent(ledger, "own", 10, credential=ORG) == 2
    assert count_sent(ledger, "bolt's", 10, credential="bolt") == 2


def test_models_share_a_limit_or_have_one_each(ledger: LedgerUnderTest) -> None:
    """As it is declared."""
    prove(ledger, "gpt-4o")
    declare(ledger, a_rule(2, model="gpt-4o*"))
    sent(ledger, "mini")
    sent(ledger, "large", model="gpt-4o")
    declare(ledger, a_rule(2, model="gpt-4o*", is_shared=True))
    sent(ledger, "mini again")
    waits(ledger, "large again", model="gpt-4o")


def test_the_newest_declaration_counts(ledger: LedgerUnderTest) -> None:
    """What waits for a limit that is not declared any more is released."""
    declare(ledger, a_rule(2))
    sent(ledger, "one")
    key = waits(ledger, "two")
    declare(ledger)

    assert released(ledger) == [key]
    assert isinstance(tried(ledger, key), AttemptRef)


def test_the_lower_of_declared_and_learned_counts(ledger: LedgerUnderTest) -> None:
    """A provider that names less than was declared is believed, and one that names more too."""
    declare(ledger, a_rule(10))
    learn(ledger, 6, remaining=6)
    ledger.age(DAY_S - 100)
    prove(ledger)
    assert count_sent(ledger, "learned", 20) == 3
    learn(ledger, 40, remaining=40)
    ledger.age(DAY_S - 10)
    prove(ledger)
    assert len(released(ledger)) == 1
    assert count_sent(ledger, "declared", 20) == 0


def test_what_a_provider_has_left_lowers_the_bucket(ledger: LedgerUnderTest) -> None:
    """Others use the key too."""
    learn(ledger, 10)
    ledger.age(DAY_S - 10)
    learn(ledger, 10, remaining=1)
    prove(ledger)

    assert count_sent(ledger, "left", 20) == 1


def test_a_learned_limit_is_forgotten_after_a_day(ledger: LedgerUnderTest) -> None:
    """No response has confirmed it."""
    learn(ledger, 2)
    ledger.age(DAY_S + 1)
    prove(ledger)

    assert count_sent(ledger, "free", 9) == 9


def test_an_observed_limit_lasts_while_it_is_in_use(ledger: LedgerUnderTest) -> None:
    """Else all that wait would come at once, ten minutes after the refusal. After a minute of rest it is forgotten."""
    prove(ledger)
    refused = sent(ledger, "refused")
    is_limited(ledger, refused)
    prove(ledger)
    keys = {refused.key, *(waits(ledger, f"later {n}") for n in range(100))}
    for _ in range(22):
        ledger.age(30)
        prove(ledger)
        ready = released(ledger)
        assert len(ready) <= 3
        keys -= {key for key in ready if isinstance(tried(ledger, key), AttemptRef)}
    assert 40 < len(keys) < 90
    ledger.age(62)
    prove(ledger)
    assert set(released(ledger)) == keys


def test_a_key_without_known_limits_begins_with_few_attempts(ledger: LedgerUnderTest) -> None:
    """Sixteen under way, and sixteen more after each minute."""
    declare(ledger, cautious=("openai",))
    ledger.set_budget(10_000)
    ledger.age(120)
    prove(ledger)
    refs = [sent(ledger, f"first {n}") for n in range(16)]
    key = waits(ledger, "next")
    assert released(ledger) == []
    ledger.age(61)
    succeeds(ledger, refs[0])

    assert released(ledger) == [key]
    assert isinstance(tried(ledger, key), AttemptRef)
    assert count_sent(ledger, "second", 40) == 16


def test_an_unlimited_provider_begins_with_any_number(ledger: LedgerUnderTest) -> None:
    """It is not cautious."""
    declare(ledger, cautious=("other",))
    ledger.age(120)
    succeeds(ledger, sent(ledger, "first"))

    assert count_sent(ledger, "second", 40) == 40


def test_kinds_of_attempts(ledger: LedgerUnderTest) -> None:
    """The first one, and those after it."""
    ref = ledger.waiting("again")
    first = ledger.view(ref).last
    again = ledger.claim(ledger.requeued(ref.key))
    second = ledger.view(again).last

    assert first is not None
    assert second is not None
    assert (first.kind, second.kind) == (AttemptKind.FIRST, AttemptKind.RETRY)


def test_a_refusal_for_the_rate_is_not_an_attempt(ledger: LedgerUnderTest) -> None:
    """Its row stays, with nothing posted."""
    ref = sent(ledger, "refused")
    is_limited(ledger, ref)

    view = ledger.view(ref)
    assert (view.attempt, view.uncounted_attempts, view.posted_nano_usd) == (1, 1, 0)
