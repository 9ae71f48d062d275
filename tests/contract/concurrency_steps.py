"""Steps of tests about how many calls of an organisation run at a time."""

from __future__ import annotations

from collections.abc import Mapping

from callgate.domain.calls import CallKey, WaitReason
from callgate.domain.concurrency import CallsOf, ConcurrencyRule
from callgate.domain.limits import Declaration
from tests.contract.flow_steps import WORKER, waits
from tests.support.ledger_under_test import LedgerUnderTest

LIMITED = WaitReason.CONCURRENCY_LIMITED


def allow(
    ledger: LedgerUnderTest,
    orgs: Mapping[str, int] = {},
    call_types: Mapping[str, int | None] = {},
) -> None:
    """Declare how many calls may run at a time; nothing else is declared."""
    rules = [ConcurrencyRule(CallsOf.ORGANISATION, *item) for item in orgs.items()]
    rules += [ConcurrencyRule(CallsOf.CALL_TYPE, *item) for item in call_types.items()]
    ledger.flow.publish(WORKER, Declaration(concurrency=tuple(rules)))


def in_line(ledger: LedgerUnderTest, *names: str, **changes: object) -> list[CallKey]:
    """New calls that wait for a place, each a second younger than the one before."""
    keys = []
    for name in names:
        key = waits(ledger, name, **changes)
        assert ledger.view(key).wait_reason is LIMITED
        keys.append(key)
        ledger.age(1)
    return keys
