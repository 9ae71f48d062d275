"""
The parts of reply cases: a reply as real providers and gateways send it, and the expected result.

Prices: 1 USD per million input tokens, 0.1 cached, 2 output. The prompt is a few words, `max_output_tokens` is 100.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from callgate.domain.requests import Anomaly

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
COST = 11 * 1_000 + 7 * 2_000
FULL = {"prompt_tokens": 11, "completion_tokens": 100, "total_tokens": 111}
FULL_COST = 11 * 1_000 + 100 * 2_000
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
CONTRADICTORY = (Anomaly.USAGE_CONTRADICTORY,)
IMPLAUSIBLE = (Anomaly.USAGE_IMPLAUSIBLE,)
MISSING = (Anomaly.USAGE_MISSING,)
ZERO = (Anomaly.USAGE_ZERO,)


@dataclass(frozen=True, slots=True)
class Reply:
    """One response."""

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    pause_s: float = 0.0
    """Silence before it."""
    drip_s: float = 0.0
    """How long it takes, in small pieces."""
    length: int | None = None
    """The Content-Length that it claims. None: the true one."""
    cut: int = 0
    """How many bytes at its end are not sent, before the connection is closed."""

    @property
    def data(self) -> bytes:
        """The bytes of its body."""
        return json.dumps(self.body).encode() if self.raw is None else self.raw


@dataclass(frozen=True, slots=True)
class Case:
    """The replies that are sent, and the expected result."""

    name: str
    replies: tuple[Reply, ...]
    """Sent in order; the last one is repeated."""
    ends: Literal["succeeded", "dead"] = "succeeded"
    posted: int | None = COST
    """Expected nano-USD of all attempts. None: the whole hold of each."""
    holds: int = 0
    """How many attempts have their whole hold posted, in addition to `posted`."""
    attempts: int = 1
    code: str | None = None
    """Code of the failure."""
    says: str = ""
    """A part of the failure's message."""
    texts: tuple[str, ...] = ("fine",)
    anomalies: tuple[str, ...] = ()
    """Anomalies of the last attempt."""
    usage_is_known: bool = True
    request: Mapping[str, Any] = field(default_factory=dict)
    entry: Mapping[str, Any] = field(default_factory=dict)
    """How the provider's entry in the catalogue differs from the default; also its `protocol`."""
    deadline_s: float | None = None
    """For each attempt, in real time; None: long enough."""


def choice(content: object = "fine", ending: object = "stop", **fields: Any) -> dict[str, Any]:
    """One choice."""
    index = fields.pop("index", 0)
    message = {"role": "assistant", "content": content, **fields.pop("message", {})}
    return {"index": index, "message": message, "finish_reason": ending, **fields}


def chat(*choices: object, usage: object = USAGE, **fields: Any) -> Reply:
    """A chat completion."""
    return Reply({"id": "x-1", "choices": list(choices or [choice()]), "usage": usage, **fields})


def dead(name: str, *replies: Reply, **right: Any) -> Case:
    """A case that ends without an answer."""
    return Case(name, replies, ends="dead", texts=(), **right)


def unpaid(name: str, error: object, code: str, **right: Any) -> Case:
    """An error in a 200 that is final and unbilled."""
    return dead(name, Reply({"error": error}), posted=0, code=code, **right)


def openai_usage(
    prompt: object, completion: object, total: object = None, **more: object
) -> dict[str, object]:
    """A usage in OpenAI's names."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
    return counts if total is None else {**counts, "total_tokens": total}


def with_usage(name: str, usage: object, posted: int | None, *anomalies: str, **right: Any) -> Case:
    """A good answer with this usage."""
    known: dict[str, Any] = {} if posted is not None else {"usage_is_known": False}
    return Case(name, (chat(usage=usage),), posted=posted, anomalies=anomalies, **known, **right)


FINE = chat()
SLOW_DOWN = Reply({"error": {"code": 429, "message": "slow down"}})
