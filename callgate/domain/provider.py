"""What comes back from a provider, and the values a request to it is measured by."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from callgate.domain import bounded_json
from callgate.domain.limits import LearnedLimit
from callgate.domain.messages import ReasoningBlock, ToolCall
from callgate.domain.requests import Anomaly, Usage

_DIGITS_OR_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9a-f]{8,}|\d+")
MESSAGE_CHARS_MAX = 500
LATER_FIELDS = ("anomalies", "tool_calls", "reasoning")
"""Fields of a stored reply that are left out while they are empty."""


class Billing(StrEnum):
    """What is known about the bill of a failed attempt."""

    UNBILLED = "unbilled"
    """Surely no charge: posted at 0."""
    BY_USAGE = "by_usage"
    """The reply came and names its usage: posted at that."""
    UNKNOWN = "unknown"
    """The request may have been billed: the whole hold is posted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt's failure, as stored in `error_json`. Never holds prompt text or keys."""

    code: str
    message: str
    retryable: bool
    billing: Billing
    status: int | None = None
    """HTTP status, where there was a response."""
    provider_code: str | None = None
    retry_after_s: float | None = None
    limits: tuple[LearnedLimit, ...] = ()
    """What the refusal's headers say about limits; not stored."""

    def to_json(self) -> str:
        """The failure as JSON text without `limits`, `message` cut to a bounded length."""
        fields = {**asdict(self), "message": self.message[:MESSAGE_CHARS_MAX]}
        del fields["limits"]
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> Failure:
        """Read back what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "billing": Billing(fields["billing"])})

    def fingerprint(self, provider: str) -> str:
        """
        A short hash that groups failures alike: numbers, ids and quoted text do not matter.

        Nor do further lines of the message.
        """
        first, _, _ = self.message[:MESSAGE_CHARS_MAX].partition("\n")
        message = _DIGITS_OR_QUOTED.sub("#", first)
        parts = json.dumps([provider, self.code, self.status, self.provider_code, message])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ProviderReply:
    """A provider's answer, whatever its wire format was."""

    texts: tuple[str, ...] = field(repr=False)
    """One per choice; a choice without text is an empty string."""
    finish_reason: str | None
    """In OpenAI's words: stop, length, content_filter, ... Of several choices the worst; see `domain.endings`."""
    refusal: str | None
    usage: Usage | None
    """None if the provider did not say. The cost is then unknown."""
    service_tier: str | None
    model: str
    provider_request_id: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    """The tools that the model asks for. A request with tools has one choice."""
    reasoning: tuple[ReasoningBlock, ...] = field(default=(), repr=False)
    """What the model thought, for the next turn."""
    anomalies: tuple[Anomaly, ...] = ()
    """What is odd about the usage."""
    failure: Failure | None = None
    """What the provider itself says went wrong, although it sent a reply and its usage. Recorded as the error."""

    limits: tuple[LearnedLimit, ...] = ()
    """What the reply's headers say about limits; not stored."""

    def without_text(self) -> ProviderReply:
        """What remains of a reply that could not be stored: its usage, so that its money is settled."""
        return replace(self, texts=(), refusal=None, tool_calls=(), reasoning=())

    def to_json(self) -> bytes:
        """The reply as stored in `ai_call_log.reply`: ASCII, so that any text survives."""
        bare = replace(self, failure=None, limits=(), tool_calls=(), reasoning=())
        fields = asdict(bare)
        fields["usage"] = self.usage.model_dump() if self.usage else None
        fields["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        fields["reasoning"] = [block.model_dump() for block in self.reasoning]
        del fields["failure"], fields["limits"]
        for name in LATER_FIELDS:
            if not fields[name]:
                # So that a worker of an earlier version, which does not know the field, can settle the reply.
                del fields[name]
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, stored: bytes) -> ProviderReply:
        """Read back what `to_json` wrote."""
        fields = bounded_json.loads(stored)
        usage = Usage(**fields["usage"]) if fields["usage"] else None
        anomalies = tuple(map(Anomaly, fields.get("anomalies", ())))
        read = {
            "texts": tuple(fields["texts"]),
            "usage": usage,
            "anomalies": anomalies,
            "tool_calls": tuple(ToolCall(**call) for call in fields.get("tool_calls", ())),
            "reasoning": tuple(ReasoningBlock(**block) for block in fields.get("reasoning", ())),
        }
        return cls(**{**fields, **read})


@dataclass(frozen=True, slots=True)
class TokenBound:
    """An upper bound of what a provider will count as input tokens, and how it was found."""

    tokens: int
    method: str
    """
    `tiktoken`, `bpe-openai` (exact counts plus a bound for the framing) or `utf8-bytes` (a proven bound).

    A client without a tokenizer counts nothing: the bound is 0, `left to the worker`.
    """


@dataclass(frozen=True, slots=True)
class Priced:
    """An amount and where its prices came from."""

    nano_usd: int
    price_source: str
    """For example `genai-prices 0.2.3 openai/gpt-4o-mini in=0.15 out=0.6 USD/M` or `overlay 2026-11-01: ...`."""
