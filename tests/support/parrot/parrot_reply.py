"""Reads a reply: `{"say": text, "does": [trick, ...], "why": ending, "fed": {"in": ..., "out": ...}}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from callgate.adapters.providers.http.answer_wrapping import unwrapped
from callgate.adapters.providers.http.reply_body import (
    billed,
    failure_in,
    fields_of,
    invalid,
    name_of,
    text_of,
    tool_call,
)
from callgate.adapters.providers.http.usage import CountField, OwnCounts, usage_in
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.endings import GOOD_ENDING, TOOLS_ENDING, Ending, ending_of
from callgate.domain.messages import ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from tests.support.parrot.parrot_errors import ERRORS

ENDINGS = {
    "done": GOOD_ENDING,
    "out of words": "length",
    "does a trick": TOOLS_ENDING,
    "covered": "content_filter",
}
"""Parrot's endings in OpenAI's words."""
_FED = "Parrot API reference, fed (2026-11)"
COUNTS = OwnCounts(
    places=("fed",),
    fields=(
        CountField("input", "in", _FED),
        CountField("cached", "known", _FED),
        CountField("output", "out", _FED),
    ),
)


def reply_of(
    body: bytes, headers: Mapping[str, str], request: LLMRequest, entry: ProviderEntry
) -> ProviderReply | Failure:
    """Read the body of a reply with a status of success. Its usage is read even if it holds no answer."""
    fields = fields_of(body, headers, request, COUNTS)
    if not isinstance(fields, dict):
        return fields
    said, calls, why = text_of(fields.get("say")), list(_calls(fields)), name_of(fields.get("why"))
    ending = ENDINGS.get((why or "").casefold(), why)
    is_answer = said is not None or bool(calls) or why is not None
    # Words, a trick or a used-up bound: tokens were used, so a count of zero is wrong and an error is not free.
    has_text = bool(said or calls) or ending_of(ending) is Ending.TRUNCATED
    reported = usage_in(fields, has_text=has_text, own=COUNTS)
    failure = billed(failure_in(fields, (), headers, entry, ERRORS), reported, has_text=has_text)
    if failure and failure.billing is not Billing.BY_USAGE:
        return failure
    if failure is None and reported.usage is None and not is_answer:
        return invalid("the reply says nothing")
    is_good = is_answer and ending_of(ending, entry.good_endings) is Ending.GOOD
    unwraps = entry.unwraps if request.response_schema else ()
    return ProviderReply(
        texts=(unwrapped(said or "", unwraps),) if is_answer else (),
        finish_reason=GOOD_ENDING if is_good else ending,
        refusal=None,
        usage=reported.usage,
        service_tier=None,
        model=name_of(fields.get("model")) or request.model,
        provider_request_id=name_of(headers.get("x-feather")),
        tool_calls=tuple(calls) if request.tools else (),
        anomalies=reported.anomalies,
        failure=failure,
    )


def _calls(fields: Mapping[str, Any]) -> Iterator[ToolCall]:
    """The tools that the model asks for."""
    does = fields.get("does")
    tricks = [trick for trick in does if isinstance(trick, dict)] if isinstance(does, list) else []
    for index, trick in enumerate(tricks):
        yield tool_call(trick.get("id"), trick.get("trick"), trick.get("with"), index)
