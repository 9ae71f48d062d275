"""
Which codes of a provider may appear in columns, messages and logs. More people read those than prompts and answers.

A provider could put a key or a prompt, in any spelling, where a code belongs. So only codes from these lists, and ids
that look like random numbers, are shown. The original values stay in the stored reply, which is as private as the
answer.
"""

from __future__ import annotations

import re

from callgate.domain.endings import GOOD_ENDING, MEANINGS, NO_FINISH_REASON
from callgate.domain.requests import ServiceTier

TIERS = frozenset(
    {*ServiceTier, "auto", "standard", "fast", "scale", "batch", "on_demand", "performance"}
)
"""Names of service tiers. Source: OpenAI, Groq, Amazon Bedrock (2026-11)."""
UNKNOWN_TIER = "unknown"
_FINISH_REASONS = """
end_turn stop_sequence max_tokens max_output_tokens model_length tool_calls tool_use function_call pause_turn refusal
model_context_window_exceeded eos eos_token eot complete completed done finish finished end incomplete cancelled
safety recitation language other blocklist prohibited_content spii malformed_function_call sensitive unspecified
finish_reason_unspecified guardrail_intervened content_filtered error_limit time_limit not_finished unknown
max_messages steered in_progress
"""
FINISH_REASONS = frozenset({GOOD_ENDING, NO_FINISH_REASON, *MEANINGS, *_FINISH_REASONS.split()})
"""
Finish reasons of all known providers, good and bad ones.

Source: OpenAI, Anthropic, Google, Amazon Bedrock, Mistral, Cohere, IBM watsonx.ai, Hugging Face TGI, Z.ai (2026-11).
"""
_ID = re.compile(
    r"(?:(?:req|chatcmpl|cmpl|chat|gen|resp|msg)[-_])?"
    r"([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.IGNORECASE,
)
READABLE_MAX = 13
"""Printable ASCII characters in 16 bytes. More of them occur in one of 20,000 random ids."""


def tier(name: str | None) -> str | None:
    """A known service tier in lower case, `unknown` for any other; None if there is no tier."""
    known = name.lower() if name else None
    return known if known is None or known in TIERS else UNKNOWN_TIER


def finish_reason(reason: str | None) -> str | None:
    """A known finish reason in lower case (`null` for none), else None."""
    known = (reason or NO_FINISH_REASON).casefold()
    return known if known in FINISH_REASONS else None


def request_id(name: str | None) -> str | None:
    """The id if it is 32 hexadecimal digits (dashes and usual prefixes allowed) that encode no text, else None."""
    match = _ID.fullmatch(name or "")
    if match is None:
        return None
    digits = match[1].replace("-", "")
    return None if _is_text(digits) or _is_text(digits[::-1]) else name


def _is_text(digits: str) -> bool:
    """True if the bytes behind hexadecimal digits are mostly printable ASCII."""
    return sum(0x20 <= byte < 0x7F for byte in bytes.fromhex(digits)) > READABLE_MAX
