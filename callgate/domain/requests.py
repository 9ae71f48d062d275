"""
Requests, as callers write them, and results, as callers get them.

`LLMRequest` is the only input format of callgate. It refuses unknown fields, text with lone surrogates, and NaN or
infinite numbers, so that the hashed, the stored and the sent request are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, field_validator

from callgate.domain import bounded_json, bounds

Name = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$", max_length=bounds.NAME_CHARS_MAX
    ),
]
"""An identifier: organisation, call type, provider, model, prompt version."""

MESSAGES_MAX = 1_000
SCHEMA_BYTES_MAX = 256 * 1024
STOP_CHARS_MAX = 1_000
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class _Value(BaseModel):
    # Values are private: they appear neither in a repr nor in a validation error.
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=False, hide_input_in_errors=True
    )


class Message(_Value):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, repr=False)]


class ServiceTier(StrEnum):
    """A provider's processing tier. Each has its own prices."""

    DEFAULT = "default"
    FLEX = "flex"
    PRIORITY = "priority"


class OnBudget(StrEnum):
    """What happens to a call whose budget is exhausted."""

    REJECT = "reject"
    WAIT = "wait"


class LLMRequest(_Value):
    """
    One LLM call, as the caller asks for it.

    Every field that changes the answer is part of `input_hash` (see `domain/identity.py`); `document_pages`,
    `on_budget` and `trace_id` are not.
    """

    org_id: Name
    call_type: Name
    provider: Name
    model: Name
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MESSAGES_MAX)]
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Most tokens of one answer, reasoning included. None: the call type's default."""
    n: Annotated[int, Field(ge=1, le=16)] = 1
    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)] | None = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=STOP_CHARS_MAX)], ...],
        Field(max_length=4, repr=False),
    ] = ()
    response_schema: str | None = Field(default=None, repr=False)
    """
    A JSON Schema as text. A Pydantic model class or a dict is accepted and converted.

    It is kept as text because the order of its keys changes answers.
    """
    prompt_version: Name | None = None
    sample_index: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Distinguishes requests that are identical on purpose, for example repeated samples."""
    service_tier: ServiceTier = ServiceTier.DEFAULT
    document_pages: Annotated[int, Field(ge=0)] | None = None
    """Pages of the document in the prompt, for the gate on pages."""
    on_budget: OnBudget = OnBudget.REJECT
    trace_id: (
        Annotated[
            str, StringConstraints(max_length=bounds.TRACE_ID_CHARS_MAX, pattern=r"^[^\x00]*$")
        ]
        | None
    ) = None
    """Stored with every attempt. NUL is refused because no text column accepts it."""
    _response_model: type[BaseModel] | None = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        schema = fields.get("response_schema")
        if isinstance(schema, type):
            self._response_model = schema

    @classmethod
    def from_stored(cls, stored: bytes) -> Self:
        """
        Parse a stored request. It is untrusted: a client's login can store anything.

        Raises:
            ValueError: It is not a request, or exceeds the bounds of `bounded_json`.
        """
        bounded_json.check_bytes(stored)
        return cls.model_validate_json(stored)

    @property
    def response_model(self) -> type[BaseModel] | None:
        """The Pydantic model class that was passed as `response_schema`. It is lost when the request is stored."""
        return self._response_model

    @field_validator("response_schema", mode="before")
    @classmethod
    def _schema_as_text(cls, schema: object) -> object:
        """Convert a Pydantic model class, a dict or JSON text to compact JSON text."""
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_json_schema()
        if isinstance(schema, dict):
            return _json_text(schema)
        if isinstance(schema, str):
            # Before parsing: megabytes of text would take seconds, and gigabytes of memory.
            _check_length(schema)
            loaded = _loaded(schema)
            if not isinstance(loaded, dict):
                raise ValueError("a response schema must be a JSON object")
            return _json_text(loaded)
        if schema is None:
            return None
        raise ValueError("a response schema must be a Pydantic model class, a dict or JSON text")

    @field_validator("response_schema")
    @classmethod
    def _schema_is_bounded(cls, schema: str | None) -> str | None:
        if schema is not None:
            _check_length(schema)
        return schema


def _check_length(schema: str) -> None:
    """ValueError for a schema of more than `SCHEMA_BYTES_MAX` bytes."""
    if len(schema.encode("utf-8", "surrogatepass")) > SCHEMA_BYTES_MAX:
        raise ValueError(f"a response schema has at most {SCHEMA_BYTES_MAX} bytes")


def _loaded(schema: str) -> object:
    """Parse a schema's text. ValueError also if it is nested too deeply."""
    try:
        return json.loads(schema)
    except RecursionError as exc:
        raise ValueError("the response schema is nested too deeply") from exc


def _json_text(schema: dict[str, Any]) -> str:
    """Compact JSON in the given key order. ValueError for NaN, Infinity, other objects and deep nesting."""
    try:
        return _dumped(schema)
    except RecursionError as exc:
        raise ValueError("the response schema is nested too deeply") from exc


def _dumped(schema: dict[str, Any]) -> str:
    """Write a schema as JSON. The ValueError names the value that is not JSON."""
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError) as exc:
        why = _not_json(schema, "$") or exc
        raise ValueError(f"the response schema cannot be written as JSON: {why}") from exc
    return text


def _not_json(value: object, path: str) -> str | None:
    """Describe the first value that JSON or UTF-8 cannot represent, with its path; None if there is none."""
    children: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        if name := next((key for key in value if _has_lone_surrogate(key)), None):
            return f"a name in {path} has a lone surrogate: {name!a}"
        children = ((f"{path}.{key}", child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        children = ((f"{path}[{n}]", child) for n, child in enumerate(value))
    elif isinstance(value, float) and not isfinite(value):
        return f"{path} is {value}"
    elif _has_lone_surrogate(value):
        return f"{path} has a lone surrogate"
    elif value is not None and not isinstance(value, str | int | float):
        return f"{path} is a {type(value).__name__}"
    return next((why for where, child in children if (why := _not_json(child, where))), None)


def _has_lone_surrogate(text: object) -> bool:
    return isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text)


class Usage(_Value):
    """
    Tokens as the provider counted them.

    `input_tokens` includes `cached_input_tokens` and `cache_write_tokens`; `output_tokens` includes `reasoning_tokens`.
    """

    input_tokens: Annotated[int, Field(ge=0)] = 0
    cached_input_tokens: Annotated[int, Field(ge=0)] = 0
    cache_write_tokens: Annotated[int, Field(ge=0)] = 0
    output_tokens: Annotated[int, Field(ge=0)] = 0
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0


class Anomaly(StrEnum):
    """What is unusual about an attempt's usage or price. Stored in the column `anomalies`."""

    USAGE_MISSING = "usage_missing"
    USAGE_ZERO = "usage_zero"
    """Zero tokens, although the reply has text."""
    USAGE_IMPLAUSIBLE = "usage_implausible"
    """A value that is not a count, or more tokens than the request could use."""
    USAGE_CONTRADICTORY = "usage_contradictory"
    """Counts that contradict each other. The most expensive reading was posted."""
    TIER_UNASKED = "tier_unasked"
    """An unknown service tier that was not requested. The default tier's price was posted."""
    PRICE_UNKNOWN = "price_unknown"
    """The tokens are known but not their price, for example in a tier without a price."""
    CHOICES_MISSING = "choices_missing"
    """Fewer answers than `n`."""


AMOUNT_UNKNOWN = frozenset(
    {
        Anomaly.USAGE_MISSING,
        Anomaly.USAGE_ZERO,
        Anomaly.USAGE_IMPLAUSIBLE,
        Anomaly.PRICE_UNKNOWN,
    }
)
"""Anomalies with an unknown cost: such an attempt is posted at its whole hold."""


class LLMResult(_Value):
    """
    The result of a call, as `handle.get()` returns it: a new copy for every caller.

    It is read from the ledger, so every visible result is in the log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    call_id: UUID
    generation: int
    text: str
    texts: tuple[str, ...]
    """All answers. Fewer than `n` only if the provider sent fewer. `text` is the first one."""
    parsed: Any = None
    """An instance of the Pydantic model that was passed as `response_schema`, else None."""
    finish_reason: str | None
    """
    `stop`, or `length` if `max_output_tokens` truncated the answer. Of several answers the worst one counts.

    Only a non-empty text answer may end with `length`. With a response schema the attempt fails.
    """
    usage: Usage | None
    """None: the provider named no usage, or an impossible one."""
    cost_usd: Decimal
    """The posted cost of all attempts of this call, including failed ones and those with an unknown bill."""
    latency_ms: int
    """Time of the successful attempt, from sending the request to the complete reply."""
    attempts: int
    model: str
    """The model that the provider names in its reply."""
    provider_request_id: str | None
