"""
Requests, as callers write them, and results, as callers get them.

`LLMRequest` is the only input format of callgate. It refuses unknown fields, text with lone surrogates, and NaN or
infinite numbers, so that the hashed, the stored and the sent request are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from operator import not_
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from callgate.domain import bounded_json, bounds
from callgate.domain.json_text import object_text
from callgate.domain.messages import (
    TOOLS_MAX,
    CacheTime,
    Message,
    ReasoningBlock,
    Tool,
    ToolCall,
    ToolChoice,
    Value,
)

Name = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$", max_length=bounds.NAME_CHARS_MAX
    ),
]
"""An identifier: organisation, call type, provider, model, prompt version."""

CacheKey = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]

MESSAGES_MAX = 1_000
STOP_CHARS_MAX = 1_000
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
"""How much a model thinks. Not every provider has all of them; see `ProviderEntry.efforts`."""
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class ServiceTier(StrEnum):
    """A provider's processing tier. Each has its own prices."""

    DEFAULT = "default"
    FLEX = "flex"
    PRIORITY = "priority"


class OnBudget(StrEnum):
    """What happens to a call whose budget is exhausted."""

    REJECT = "reject"
    WAIT = "wait"


class LLMRequest(Value):
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
    tools: Annotated[tuple[Tool, ...], Field(max_length=TOOLS_MAX, exclude_if=not_)] = ()
    tool_choice: Annotated[
        Literal["auto", "none", "required"] | ToolChoice | None, Field(exclude_if=not_)
    ] = None
    """None: the model decides. `required`: it must call some tool. `ToolChoice(name=...)`: it must call this one."""
    top_k: Annotated[Annotated[int, Field(ge=1, le=10_000)] | None, Field(exclude_if=not_)] = None
    reasoning_effort: Annotated[Effort | None, Field(exclude_if=not_)] = None
    """How much the model thinks. What it thinks counts towards `max_output_tokens`."""
    thinking_tokens: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000)] | None, Field(exclude_if=not_)
    ] = None
    """The most tokens that it thinks: less than `max_output_tokens`, which they count towards."""
    verbosity: Annotated[Literal["low", "medium", "high"] | None, Field(exclude_if=not_)] = None
    prompt_cache_key: Annotated[CacheKey | None, Field(exclude_if=not_)] = None
    """Requests with the same key share the provider's cache of prompts where it has such a key."""
    extra: Annotated[str | None, Field(repr=False, exclude_if=not_)] = None
    """
    Fields of the provider's own protocol, as a JSON object in text; a dict is accepted.

    The catalogue lists which names are allowed (`extra_fields`). It can change neither the model nor the output bound.
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
        elif schema is not None and not isinstance(schema, dict | str):
            raise ValueError(
                "a response schema must be a Pydantic model class, a dict or JSON text"
            )
        return object_text(schema, "the response schema")

    @field_validator("extra", mode="before")
    @classmethod
    def _extra_as_text(cls, extra: object) -> object:
        """Convert a dict or JSON text to compact JSON text."""
        return object_text(extra, "extra")

    @model_validator(mode="after")
    def _tools_fit(self) -> Self:
        """Refuse combinations of tools that no provider accepts."""
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if self.tool_choice is not None and not names:
            raise ValueError("tool_choice needs tools")
        if isinstance(self.tool_choice, ToolChoice) and self.tool_choice.name not in names:
            raise ValueError("tool_choice names a tool that is not there")
        if names and self.n > 1:
            raise ValueError("with tools n must be 1: a tool call belongs to one answer")
        if self.thinking_tokens is not None and self.reasoning_effort is not None:
            raise ValueError("set thinking_tokens or reasoning_effort, not both")
        return self

    def texts(self) -> Iterator[str]:
        """Every text of it that a provider counts as input, except the response schema."""
        for message in self.messages:
            yield message.content
        yield from self.framed_texts()

    def framed_texts(self) -> Iterator[str]:
        """Those of them that a provider writes into its prompt in a way of its own: tools, tool calls, reasoning."""
        for message in self.messages:
            for call in message.tool_calls:
                yield from (call.id, call.name, call.arguments)
            if message.tool_call_id:
                yield message.tool_call_id
            for block in message.reasoning:
                yield block.data
        for tool in self.tools:
            yield from (tool.name, tool.description, tool.parameters)
        if self.extra is not None:
            yield self.extra

    def cache_marks(self) -> list[CacheTime]:
        """All cache marks, in the order in which a provider reads them: those of tools, then those of messages."""
        marks = (*(tool.cache for tool in self.tools), *(m.cache for m in self.messages))
        return [mark for mark in marks if mark is not None]


class Usage(Value):
    """
    Tokens as the provider counted them.

    `input_tokens` includes `cached_input_tokens` and `cache_write_tokens`; `output_tokens` includes `reasoning_tokens`.
    """

    input_tokens: Annotated[int, Field(ge=0)] = 0
    cached_input_tokens: Annotated[int, Field(ge=0)] = 0
    cache_write_tokens: Annotated[int, Field(ge=0)] = 0
    """All that was written to the provider's cache, for whatever time."""
    output_tokens: Annotated[int, Field(ge=0)] = 0
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0
    cache_write_1h_tokens: Annotated[int, Field(ge=0, exclude_if=not_)] = 0
    """The part of `cache_write_tokens` that was written for an hour, which costs more."""


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


class LLMResult(Value):
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
    tool_calls: tuple[ToolCall, ...] = ()
    """The tools that the model asks the caller to run. Send their results as messages of the role `tool`."""
    reasoning: Annotated[tuple[ReasoningBlock, ...], Field(repr=False)] = ()
    """What the model thought. `message` sends it on, because some models need it in the next turn."""
    parsed: Any = None
    """An instance of the Pydantic model that was passed as `response_schema`, else None."""
    finish_reason: str | None
    """
    `stop`, `tool_calls` if it asks for tools, or `length` if `max_output_tokens` truncated the answer.

    Of several answers the worst one counts.

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

    @property
    def message(self) -> Message:
        """The answer as a message, for the next turn of the conversation."""
        return Message(
            role="assistant",
            content=self.text,
            tool_calls=self.tool_calls,
            reasoning=self.reasoning,
        )
