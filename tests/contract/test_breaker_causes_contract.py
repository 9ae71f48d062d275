"""An open breaker, and each call that waits for it, says what exactly failed, where callgate knows it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from callgate.domain.breaker import Health
from callgate.domain.causes import OWN_WORDS_CODES, cause_of_json
from callgate.domain.provider import Billing, Failure
from tests.contract.breaker_steps import (
    BY,
    MODEL,
    breaker,
    breakers,
    opened,
    opened_for_all,
    sent,
    waits,
)
from tests.support.ledger_under_test import ORG, LedgerUnderTest, a_failure, an_answer

REFUSED = Failure("connection_failed", "127.0.0.1:9: could not connect", True, Billing.UNBILLED)


def fails(ledger: LedgerUnderTest, failure: Failure, health: Health = Health.FAILED) -> None:
    """Open the breaker of the organisation with failures like this one."""
    for n in range(3):
        ref = sent(ledger, f"fails {n}") if n == 0 or not breaker(ledger).is_open else None
        if ref is None:
            return
        ledger.record(an_answer(ref))
        made = replace(
            a_failure(ref),
            health=health,
            failure_code=failure.code,
            error=failure.to_json(),
            error_fingerprint="0123456789abcdef",
        )
        ledger.settle(made)


def test_an_open_breaker_says_where_the_connection_failed(ledger: LedgerUnderTest) -> None:
    fails(ledger, REFUSED)

    found = breaker(ledger)
    assert (found.is_open, found.reason) == (True, "connection_failed")
    assert found.cause == "127.0.0.1:9: could not connect"
    assert found.error_fingerprint == "0123456789abcdef"


def test_a_call_that_waits_for_it_says_that_too(ledger: LedgerUnderTest) -> None:
    fails(ledger, REFUSED)
    key = waits(ledger, "later")

    error = json.loads(ledger.view(key).error or "")
    assert error["message"] == (
        f"openai/{MODEL} is left alone for {ORG}: connection_failed (127.0.0.1:9: could not connect)"
    )


def test_a_closed_breaker_keeps_no_cause(ledger: LedgerUnderTest) -> None:
    fails(ledger, REFUSED)
    ledger.operations.set_breaker("openai", MODEL, "", is_open=False, by=BY)

    assert (breaker(ledger).cause, breaker(ledger).error_fingerprint) == (None, None)


@pytest.mark.parametrize("code", [*sorted(OWN_WORDS_CODES), "server_error", "insufficient_quota"])
def test_only_callgates_own_words_are_kept(ledger: LedgerUnderTest, code: str) -> None:
    """A provider's may quote a prompt."""
    failure = replace(REFUSED, code=code, message="words")
    fails(ledger, failure)

    assert breaker(ledger).cause == cause_of_json(failure.to_json())
    assert (breaker(ledger).cause is None) == (code not in OWN_WORDS_CODES)


def test_a_waiting_call_is_counted_once(ledger: LedgerUnderTest) -> None:
    """At the breaker that is the reason of its wait."""
    opened(ledger)
    waits(ledger, "of the organisation")

    assert {org_id: b.waiting for org_id, b in breakers(ledger).items()} == {ORG: 1, "": 0}


def test_all_are_counted_at_the_shared_one_if_that_is_open(ledger: LedgerUnderTest) -> None:
    opened_for_all(ledger)
    waits(ledger, "of the organisation")

    found = {org_id: b.waiting for org_id, b in breakers(ledger).items()}
    assert found.pop("") == 1
    assert set(found.values()) <= {0}
