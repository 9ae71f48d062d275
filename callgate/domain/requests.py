"""
What a caller asks for and what it gets back.

`LLMRequest` is the only shape that enters callgate. It refuses unknown fields, text that is not valid Unicode and
numbers that are not finite, so that what is hashed, stored and sent is the same everywhere.
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
    # What callers write is private: it is quoted neither in a repr nor in a complaint about it.
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=False, hide_input_in_errors=True
    )


class Message(_Value):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, repr=False)]


class ServiceTier(StrEnum):
    """What a provider's processing tier is called; each has prices of its own."""

    DEFAULT = "default"
    FLEX = "flex"
    PRIORITY = "priority"


class OnBudget(StrEnum):
    """What happens to a call that finds its budget exhausted."""

    REJECT = "reject"
    WAIT = "wait"


class LLMRequest(_Value):
    """
    One logical call, before anything is known about it.

    Identity: every field that changes the answer is part of `input_hash`; `document_pages`, `on_budget` and
    `trace_id` are not.
    """

    org_id: Name
    call_type: Name
    provider: Name
    model: Name
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MESSAGES_MAX)]
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tokens one answer may have, reasoning included; the call type's default if None. It is sent as it is held."""
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
    A JSON Schema as ordered text; a Pydantic model or a dict is turned into it.

    Text, because the order of its keys changes answers.
    """
    prompt_version: Name | None = None
    sample_index: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Tells apart calls that are alike on purpose, such as repeated samples."""
    service_tier: ServiceTier = ServiceTier.DEFAULT
    document_pages: Annotated[int, Field(ge=0)] | None = None
    """Pages of the document behind the prompt, for the page gate."""
    on_budget: OnBudget = OnBudget.REJECT
    trace_id: (
        Annotated[
            str, StringConstraints(max_length=bounds.TRACE_ID_CHARS_MAX, pattern=r"^[^\x00]*$")
        ]
        | None
    ) = None
    """Kept with every attempt. Without NUL, which no text column takes."""
    _response_model: type[BaseModel] | None = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        schema = fields.get("response_schema")
        if isinstance(schema, type):
            self._response_model = schema

    @classmethod
    def from_stored(cls, stored: bytes) -> Self:
        """
        Read what the ledger keeps; a client may have stored anything there.

        Raises:
            ValueError: It is no request, or has more values than one; a `ValidationError` would quote the prompt.
        """
        bounded_json.check_utf8(stored)
        return cls.model_validate_json(stored)

    @property
    def response_model(self) -> type[BaseModel] | None:
        """The Pydantic model that was passed as `response_schema`; known only where the request was made."""
        return self._response_model

    @field_validator("response_schema", mode="before")
    @classmethod
    def _schema_as_text(cls, schema: object) -> object:
        """Accept a Pydantic model class, a JSON Schema as a dict, or its text."""
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_json_schema()
        if isinstance(schema, dict):
            return _json_text(schema)
        if isinstance(schema, str):
            # Before it is read: a text of megabytes takes seconds, and gigabytes.
            _check_length(schema)
            loaded = _loaded(schema)
            if not isinstance(loaded, dict):
                raise ValueError("a response schema is a JSON object")
            return _json_text(loaded)
        if schema is None:
            return None
        raise ValueError("a response schema is a Pydantic model class, a dict or JSON text")

    @field_validator("response_schema")
    @classmethod
    def _schema_is_bounded(cls, schema: str | None) -> str | None:
        if schema is not None:
            _check_length(schema)
        return schema


def _check_length(schema: str) -> None:
    if len(schema.encode("utf-8", "surrogatepass")) > SCHEMA_BYTES_MAX:
        raise ValueError(f"a response schema has at most {SCHEMA_BYTES_MAX} bytes")


def _loaded(schema: str) -> object:
    try:
        return json.loads(schema)
    except RecursionError as exc:
        raise ValueError("the response schema is nested too deeply") from exc


def _json_text(schema: dict[str, Any]) -> str:
    """Compact JSON in the given key order; NaN, Infinity and foreign objects are refused."""
    try:
        return _dumped(schema)
    except RecursionError as exc:
        raise ValueError("the response schema is nested too deeply") from exc


def _dumped(schema: dict[str, Any]) -> str:
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError) as exc:
        why = _not_json(schema, "$") or exc
        raise ValueError(f"the response schema cannot be written as JSON: {why}") from exc
    return text


def _not_json(value: object, path: str) -> str | None:
    """Name the place of the first value that JSON does not have, or UTF-8 cannot hold."""
    children: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        if halved := next((key for key in value if _is_halved(key)), None):
            return f"a name in {path} holds half a character: {halved!a}"
        children = ((f"{path}.{key}", child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        children = ((f"{path}[{n}]", child) for n, child in enumerate(value))
    elif isinstance(value, float) and not isfinite(value):
        return f"{path} is {value}"
    elif _is_halved(value):
        return f"{path} holds half a character"
    elif value is not None and not isinstance(value, str | int | float):
        return f"{path} is a {type(value).__name__}"
    return next((why for where, child in children if (why := _not_json(child, where))), None)


def _is_halved(text: object) -> bool:
    """True of a text with a lone surrogate."""
    return isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text)


class Usage(_Value):
    """
    Tokens as the provider counted them; buckets are inclusive.

    `cached_input_tokens` and `cache_write_tokens` are part of `input_tokens`, `reasoning_tokens` of `output_tokens`.
    """

    input_tokens: Annotated[int, Field(ge=0)] = 0
    cached_input_tokens: Annotated[int, Field(ge=0)] = 0
    cache_write_tokens: Annotated[int, Field(ge=0)] = 0
    output_tokens: Annotated[int, Field(ge=0)] = 0
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0


class Anomaly(StrEnum):
    """What is odd about the bill of an attempt, in the column `anomalies`."""

    USAGE_MISSING = "usage_missing"
    USAGE_ZERO = "usage_zero"
    """No tokens, beside a text."""
    USAGE_IMPLAUSIBLE = "usage_implausible"
    """No count of tokens, or more than the request could use."""
    USAGE_CONTRADICTORY = "usage_contradictory"
    """Its numbers contradict each other; the dearest reading they allow was posted."""
    TIER_UNASKED = "tier_unasked"
    """The provider names a service tier that was not asked for and is not known; the default was posted."""
    PRICE_UNKNOWN = "price_unknown"
    """The tokens are known, but not what they cost, such as in a tier that has no price."""
    CHOICES_MISSING = "choices_missing"
    """Fewer answers than the request asked for."""


AMOUNT_UNKNOWN = frozenset(
    {
        Anomaly.USAGE_MISSING,
        Anomaly.USAGE_ZERO,
        Anomaly.USAGE_IMPLAUSIBLE,
        Anomaly.PRICE_UNKNOWN,
    }
)
"""The anomalies of attempts that were posted at their whole hold, because nobody knows their cost."""


class LLMResult(_Value):
    """
    What `handle.get()` returns: a fresh copy for every caller.

    Source: read back from the ledger, so a visible result is a logged result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    call_id: UUID
    generation: int
    text: str
    texts: tuple[str, ...]
    """All answers, fewer than `n` only if the provider sent fewer; `text` is the first."""
    parsed: Any = None
    """An instance of the Pydantic model that was passed as `response_schema`; None if there was none."""
    finish_reason: str | None
    """
    How the answer ended: `stop`, or `length` where `max_output_tokens` cut it short.

    Text may end with `length`; an answer to a schema, or an empty one, may not. Of several answers the worst ending
    counts.
    """
    usage: Usage | None
    """None: the provider did not say, or what it said cannot be true."""
    cost_usd: Decimal
    """What all attempts of this call were posted at, failed and unknown ones included."""
    latency_ms: int
    """Of the attempt that succeeded: from sending the request to having the whole reply."""
    attempts: int
    model: str
    """The model the provider says answered."""
    provider_request_id: str | None
