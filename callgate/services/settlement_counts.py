"""Count what settled attempts came to."""

from __future__ import annotations

from callgate.domain import metrics
from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.ledger import Settle, Settled
from callgate.domain.metric_ports import Meter
from callgate.domain.provider import Failure
from callgate.domain.requests import Usage
from callgate.services.call_lines import AttemptFacts


def count_settled(meter: Meter, facts: AttemptFacts, settle: Settle, settled: Settled) -> None:
    """Count an attempt that was settled now. The answer of an unknown one is late: it was counted before."""
    if not settled.is_applied:
        return
    names = facts.provider, facts.model
    if settle.expected_status is AttemptStatus.UNKNOWN:
        meter.count(metrics.LATE_ANSWERS, *names)
        returned = facts.posted_nano_usd - settle.posted_nano_usd
        if returned >= 0:
            meter.count(metrics.COST_RETURNED, *names, amount=returned / NANO_PER_USD)
        else:
            meter.count(metrics.COST, *names, settle.status.value, amount=-returned / NANO_PER_USD)
    else:
        failure = Failure.from_json(settle.error).code if settle.error else ""
        meter.count(metrics.ATTEMPTS, *names, facts.kind.value, settle.status.value, failure)
        cost = settle.posted_nano_usd / NANO_PER_USD
        meter.count(metrics.COST, *names, settle.status.value, amount=cost)
    if settle.usage is not None:
        _count_tokens(meter, names, settle.usage)
    if settled.has_ended:
        _count_end(meter, settle, settled)


def _count_tokens(meter: Meter, names: tuple[str, str], usage: Usage) -> None:
    counts = {
        "input": usage.input_tokens,
        "cached_input": usage.cached_input_tokens,
        "cache_write": usage.cache_write_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    for kind, tokens in counts.items():
        if tokens:
            meter.count(metrics.TOKENS, *names, kind, amount=tokens)


def _count_end(meter: Meter, settle: Settle, settled: Settled) -> None:
    is_dead = settled.state is CallState.DEAD and settle.error is not None
    reason = Failure.from_json(settle.error or "").code if is_dead else ""
    meter.count(metrics.CALLS_ENDED, settled.state.value, reason)
