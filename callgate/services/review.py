"""Review a provider's reply: is it a result, and what does it cost?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from callgate.domain import safe_codes
from callgate.domain.calls import AttemptView, CallView
from callgate.domain.endings import TOOLS_ENDING, Ending, ending_of
from callgate.domain.errors import UnpricedModel
from callgate.domain.ports import CostCalculatorPort
from callgate.domain.provider import Billing, Failure, Priced, ProviderReply
from callgate.domain.requests import AMOUNT_UNKNOWN, Anomaly, LLMRequest, ServiceTier, Usage

STANDARD_TIERS = frozenset({"auto", "default", "standard"})
"""Names that providers give to their standard tier."""
PRIORITY_NAMES = frozenset({"fast"})
"""OpenAI renamed its priority tier on 2026-07-30; both names are valid (developers.openai.com, "Fast mode")."""
INPUT_FACTOR = 2
"""
A usage with more input tokens than this times the bound is a mistake of the provider's.

Output needs no factor: the request limits it, in the provider's own tokens.
"""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What to post for an attempt, and the anomalies of its bill."""

    priced: Priced
    usage: Usage | None = None
    """The tokens that were used; None if they are unknown."""
    anomalies: tuple[Anomaly, ...] = ()


def flaw_of(
    reply: ProviderReply,
    good_endings: Collection[str],
    schema: str | None = None,
) -> Failure | None:
    """
    Say why a paid reply is not a result, from its form alone; None if it may be one.

    Args:
        good_endings: See `ProviderEntry.good_endings`.
    """
    if reply.refusal:
        return _paid("refused_by_model", "the model refused to answer", retryable=False)
    if not reply.texts:
        return _paid("empty_reply", "the reply has no choices", retryable=False)
    if reply.tool_calls:
        # An adapter reads tool calls only where the request had tools.
        good_endings = {*good_endings, TOOLS_ENDING}
    ending = ending_of(reply.finish_reason, good_endings)
    if ending > Ending.TRUNCATED:
        return _flaw_of_ending(ending, reply.finish_reason)
    is_empty = not reply.tool_calls and not all(text.strip() for text in reply.texts)
    if ending is Ending.TRUNCATED and is_empty:
        why = "max_output_tokens was reached before any answer: reasoning used it up"
        return _paid("output_truncated", why, retryable=False)
    if ending is Ending.TRUNCATED and (schema is not None or reply.tool_calls):
        why = "max_output_tokens cut the answer short"
        return _paid("output_truncated", why, retryable=False)
    if is_empty:
        return _paid("empty_reply", "the reply has no text", retryable=True)
    return None


def _flaw_of_ending(ending: Ending, finish_reason: str | None) -> Failure:
    if ending is Ending.FILTERED:
        return _paid("content_filtered", "the provider filtered the answer", retryable=False)
    if ending is Ending.ABORTED:
        return _paid("broken_off", "the provider broke off its answer", retryable=True)
    name = safe_codes.finish_reason(finish_reason)
    shown = (
        f"`{name}`" if name else "another finish reason (`callgate calls show --bodies` shows it)"
    )
    message = (
        f"the answer ended with {shown}, which is not a good ending: if the provider uses it for complete "
        "answers, add it to the provider's good_endings in the catalogue"
    )
    return _paid("unknown_ending", message, retryable=False)


def assess(
    costs: CostCalculatorPort,
    view: CallView,
    attempt: AttemptView,
    reply: ProviderReply | None,
    failure: Failure | None,
    request: LLMRequest | None,
) -> Assessment:
    """
    Say what to post: 0 if the attempt is surely unbilled, its cost if the usage is plausible, else the whole hold.

    A plausible cost may exceed the hold only by what the hold could not foresee: up to twice the input bound, with the
    price step that this reaches; a dearer tier that the provider names; a price in a new catalogue.

    Args:
        request: None if it was purged.
    """
    if failure is not None and failure.billing is Billing.UNBILLED:
        return Assessment(Priced(0, attempt.price_source or "unbilled"))
    if failure is not None and failure.billing is Billing.UNKNOWN:
        return Assessment(Priced(attempt.hold_nano_usd, "whole hold: outcome unknown"))
    if reply is None:
        return Assessment(Priced(attempt.hold_nano_usd, "whole hold: no reply"))
    tier, anomalies = _tier(safe_codes.tier(reply.service_tier), request), list(reply.anomalies)
    if tier is None:
        anomalies.append(Anomaly.TIER_UNASKED)
    if request is not None and failure is None and len(reply.texts) < request.n:
        anomalies.append(Anomaly.CHOICES_MISSING)
    if reply.usage is None and not AMOUNT_UNKNOWN & set(anomalies):
        anomalies.append(Anomaly.USAGE_MISSING)
    if reply.usage is not None and _is_implausible(reply.usage, view, request):
        anomalies.append(Anomaly.USAGE_IMPLAUSIBLE)
    if reply.usage is None or AMOUNT_UNKNOWN & set(anomalies):
        return Assessment(_whole_hold(attempt, anomalies), None, tuple(anomalies))
    try:
        priced = costs.cost(
            view.provider,
            view.model,
            reply.usage,
            ServiceTier(tier or ServiceTier.DEFAULT),
            attempt.started_at,
        )
    except (UnpricedModel, ValueError) as exc:
        anomalies.append(Anomaly.PRICE_UNKNOWN)
        priced = Priced(attempt.hold_nano_usd, f"whole hold: {exc}")
    if priced.nano_usd > attempt.hold_nano_usd and _output_max(request) is None:
        anomalies.append(Anomaly.USAGE_IMPLAUSIBLE)
        return Assessment(_whole_hold(attempt, anomalies), None, tuple(anomalies))
    return Assessment(priced, reply.usage, tuple(anomalies))


def _whole_hold(attempt: AttemptView, anomalies: Sequence[Anomaly]) -> Priced:
    return Priced(attempt.hold_nano_usd, f"whole hold: {', '.join(anomalies)}")


def _output_max(request: LLMRequest | None) -> int | None:
    """The most tokens that all answers together may have; None if the request was purged."""
    if request is None or request.max_output_tokens is None:
        return None
    return request.n * request.max_output_tokens


def _tier(name: str | None, request: LLMRequest | None) -> str | None:
    """The tier of a reply; None if its name is unknown and the request asked for no tier."""
    reported = name or ServiceTier.DEFAULT
    if reported in STANDARD_TIERS:
        return ServiceTier.DEFAULT
    if reported in PRIORITY_NAMES:
        return ServiceTier.PRIORITY
    is_asked = request is not None and request.service_tier is not ServiceTier.DEFAULT
    return reported if is_asked or reported in list(ServiceTier) else None


def _is_implausible(usage: Usage, view: CallView, request: LLMRequest | None) -> bool:
    """True if a count is above its bound. Without a bound of the output, `assess` posts at most the hold."""
    output_max = _output_max(request)
    return usage.input_tokens > INPUT_FACTOR * view.input_token_bound or (
        output_max is not None and usage.output_tokens > output_max
    )


def _paid(code: str, message: str, *, retryable: bool) -> Failure:
    return Failure(code, message, retryable, Billing.BY_USAGE)
