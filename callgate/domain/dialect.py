"""What a provider can express of a request, as the catalogue declares it. A field that it cannot is refused at once."""

from __future__ import annotations

import json

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.requests import LLMRequest


def why_inexpressible(request: LLMRequest, entry: ProviderEntry) -> str | None:
    """Say what of the request this provider cannot be asked for; None if it can be asked for everything."""
    fields = LLMRequest.model_fields
    unknown = [n for n in entry.cannot if getattr(request, n) != fields[n].get_default()]
    if unknown:
        return f"provider {request.provider!r} knows no {', '.join(unknown)}"
    if request.service_tier not in entry.tier_names:
        return f"provider {request.provider!r} has no service tier '{request.service_tier}'"
    if request.extra is not None and (
        refused := sorted(json.loads(request.extra).keys() - set(entry.extra_fields))
    ):
        # A name may be private text, so only its number is told.
        allowed = ", ".join(entry.extra_fields) or "none"
        return (
            f"extra has {len(refused)} fields that provider {request.provider!r} does not allow in the catalogue; "
            f"it allows: {allowed}"
        )
    if (request.thinking_tokens or 0) >= (request.max_output_tokens or 0) > 0:
        return "thinking_tokens must be less than max_output_tokens, which they count towards"
    return None
