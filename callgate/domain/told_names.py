"""
Which names of a provider's may stand in columns, messages and logs, which more people read than prompts and answers.

A provider could put a key or a prompt, in any spelling, where a name belongs. So only names from lists are told, and
ids that are random numbers. As they came, names stay in the stored reply, which is as private as the answer.
"""

from __future__ import annotations

import re

from callgate.domain.endings import GOOD_ENDING, MEANINGS, UNTOLD
from callgate.domain.requests import ServiceTier

TIERS = frozenset({*ServiceTier, "auto", "standard", "scale", "batch", "on_demand", "performance"})
"""What service tiers are called. Source: OpenAI, Groq, Amazon Bedrock (2026-11)."""
UNKNOWN_TIER = "unknown"
_ENDINGS = """
end_turn stop_sequence max_tokens max_output_tokens model_length tool_calls tool_use function_call pause_turn refusal
model_context_window_exceeded eos eos_token eot complete completed done finish finished end incomplete cancelled
safety recitation language other blocklist prohibited_content spii malformed_function_call sensitive unspecified
finish_reason_unspecified guardrail_intervened content_filtered error_limit time_limit not_finished unknown
"""
ENDINGS = frozenset({GOOD_ENDING, UNTOLD, *MEANINGS, *_ENDINGS.split()})
"""
What endings are called, by those who mean them well and by others.

Source: Anthropic, Google, Amazon Bedrock, Mistral, Cohere, IBM watsonx.ai, Hugging Face TGI, Z.ai (2026-11).
"""
_ID = re.compile(
    r"(?:(?:req|chatcmpl|cmpl|chat|gen|resp|msg)[-_])?"
    r"([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.IGNORECASE,
)
READABLE_MAX = 13
"""Of 16 random bytes more are readable characters in one of 20,000 cases."""


def tier(name: str | None) -> str | None:
    """A service tier by its name, or that it has another one."""
    told = name.lower() if name else None
    return told if told is None or told in TIERS else UNKNOWN_TIER


def ending(finish_reason: str | None) -> str | None:
    """A finish reason that others use too."""
    told = (finish_reason or UNTOLD).casefold()
    return told if told in ENDINGS else None


def request_id(name: str | None) -> str | None:
    """An id of 32 hexadecimal digits, with dashes or a usual prefix, unless they spell a text, from either end."""
    match = _ID.fullmatch(name or "")
    if match is None:
        return None
    digits = match[1].replace("-", "")
    return None if _spells(digits) or _spells(digits[::-1]) else name


def _spells(digits: str) -> bool:
    return sum(0x20 <= byte < 0x7F for byte in bytes.fromhex(digits)) > READABLE_MAX
