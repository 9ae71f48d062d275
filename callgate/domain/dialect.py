"""What a provider can express of a request, as the catalogue declares it. What it cannot is refused at submit."""

from __future__ import annotations

import json
from collections.abc import Callable

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.json_text import object_text
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import why_unanswerable

SYSTEM_ROLES = ("system", "developer")

Rule = Callable[[LLMRequest, ProviderEntry], str | None]
"""Says what is wrong with a request, or None."""


def why_inexpressible(request: LLMRequest, entry: ProviderEntry) -> str | None:
    """Say what of the request this provider cannot be asked for; None if it can be asked for everything."""
    return next((why for rule in RULES if (why := rule(request, entry))), None)


def _unknown_fields(request: LLMRequest, entry: ProviderEntry) -> str | None:
    fields = LLMRequest.model_fields
    unknown = [n for n in entry.cannot if getattr(request, n) != fields[n].get_default()]
    if not unknown:
        return None
    return f"provider {request.provider!r} knows no {', '.join(unknown)}"


def _unknown_tier(request: LLMRequest, entry: ProviderEntry) -> str | None:
    if request.service_tier in entry.tier_names:
        return None
    return f"provider {request.provider!r} has no service tier '{request.service_tier}'"


def _refused_extra(request: LLMRequest, entry: ProviderEntry) -> str | None:
    if request.extra is None:
        return None
    refused = json.loads(request.extra).keys() - set(entry.extra_fields)
    if not refused:
        return None
    # A name may be private text, so only its number is told.
    allowed = ", ".join(entry.extra_fields) or "none"
    return (
        f"extra has {len(refused)} fields that provider {request.provider!r} does not allow in the catalogue; "
        f"it allows: {allowed}"
    )


def _out_of_range(request: LLMRequest, entry: ProviderEntry) -> str | None:
    """Sampling and thinking."""
    if (request.temperature or 0) > entry.temperature_max:
        return f"temperature of provider {request.provider!r} is at most {entry.temperature_max:g}"
    effort = request.reasoning_effort
    if effort is not None and effort not in entry.efforts:
        known = ", ".join(entry.efforts)
        return f"reasoning_effort of provider {request.provider!r} is one of {known}"
    thinking_tokens = request.thinking_tokens
    if thinking_tokens is None:
        return None
    if thinking_tokens < entry.thinking_tokens_min:
        return f"thinking_tokens of provider {request.provider!r} are at least {entry.thinking_tokens_min}"
    if thinking_tokens >= (request.max_output_tokens or 0) > 0:
        return "thinking_tokens must be less than max_output_tokens, which they count towards"
    return None


def _wrong_cache_marks(request: LLMRequest, entry: ProviderEntry) -> str | None:
    if entry.cache_marks_max is None:
        return None
    marks = request.cache_marks()
    if len(marks) > entry.cache_marks_max:
        return f"a request has at most {entry.cache_marks_max} cache marks, of messages and tools together"
    first_short = marks.index("5m") if "5m" in marks else len(marks)
    if "1h" in marks[first_short:]:
        return "cache marks of 1h must come before those of 5m: first those of tools, then those of messages in order"
    return None


def _wrong_order(request: LLMRequest, entry: ProviderEntry) -> str | None:
    """Messages of the system where the provider cannot have them."""
    if not entry.system_first:
        return None
    are_system = [message.role in SYSTEM_ROLES for message in request.messages]
    if all(are_system):
        return f"provider {request.provider!r} needs a message that is not of the system"
    if any(are_system[are_system.index(False) :]):
        return (
            f"provider {request.provider!r} takes system and developer messages only before all others: "
            "put them first, or write the later ones into a message of the user"
        )
    return None


def _wrong_arguments(request: LLMRequest, entry: ProviderEntry) -> str | None:
    if not entry.object_arguments:
        return None
    for index, message in enumerate(request.messages):
        for call in message.tool_calls:
            try:
                object_text(call.arguments.strip() or "{}", "the arguments")
            except ValueError:
                # Its message may quote them.
                return (
                    f"messages[{index}]: provider {request.provider!r} takes only a JSON object as the arguments of "
                    "a tool call"
                )
    return None


RULES: tuple[Rule, ...] = (
    _unknown_fields,
    _unknown_tier,
    _refused_extra,
    _out_of_range,
    _wrong_cache_marks,
    _wrong_order,
    _wrong_arguments,
    why_unanswerable,
)
