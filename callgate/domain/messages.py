"""Messages and tools, as callers write them and as providers answer with them. They are the same for all providers."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from callgate.domain.json_text import object_text

TOOLS_MAX = 128
TOOL_CALLS_MAX = 128
BLOCKS_MAX = 256
DESCRIPTION_CHARS_MAX = 16_384
CacheTime = Literal["5m", "1h"]
"""How long a provider keeps a prompt up to a mark. Anthropic alone has such marks; see `Message.cache`."""

Text = Annotated[str, StringConstraints(min_length=0)]
"""Any text. Its type has a constraint because pydantic refuses lone surrogates only in such types."""
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What all providers accept as the name of a tool."""
ToolCallId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$")]


class Value(BaseModel):
    """A value that callers write. It is private: it appears neither in a repr nor in a validation error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=False, hide_input_in_errors=True
    )


def later_fields(model: type[BaseModel]) -> frozenset[str]:
    """
    The fields that were added after release 0.1.0. The JSON leaves them out while they have their default.

    So a request that uses none of them keeps its `input_hash`, and workers of 0.1.0 can read it. Their defaults are
    falsy; `exclude_if=not_` is what leaves them out.
    """
    return frozenset(n for n, field in model.model_fields.items() if field.exclude_if is not_)


class ToolCall(Value):
    """A call of a tool that the model asks for. The caller runs the tool."""

    id: ToolCallId
    """The provider's id of it. `Message.tool_call_id` of the result names it."""
    name: ToolName
    arguments: Annotated[Text, Field(repr=False)]
    """JSON text as the model wrote it. callgate does not check it: a model may write anything."""


class ReasoningBlock(Value):
    """
    What a model thought, with the signature that its provider needs.

    Some models refuse the next turn of a tool conversation without it. It is sent on unchanged, and only to a provider
    of the same protocol.
    """

    protocol: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]
    """The protocol that it came in."""
    text: Annotated[Text, Field(repr=False)] = ""
    """The thoughts, or a summary, where the provider shows them."""
    data: Annotated[Text, Field(repr=False)]
    """The provider's own block as JSON text."""


class Tool(Value):
    """A function that the model may ask the caller to run."""

    name: ToolName
    description: Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX, repr=False)] = ""
    parameters: Annotated[str, Field(repr=False)] = '{"type":"object","properties":{}}'
    """A JSON Schema as text; a Pydantic model class or a dict is accepted. The order of its keys changes answers."""
    cache: CacheTime | None = None
    """See `Message.cache`."""

    @field_validator("parameters", mode="before")
    @classmethod
    def _parameters_as_text(cls, parameters: object) -> object:
        if isinstance(parameters, type) and issubclass(parameters, BaseModel):
            parameters = parameters.model_json_schema()
        return object_text(parameters, "the parameters of a tool")


class ToolChoice(Value):
    """The tool that the model must call."""

    name: ToolName


class Message(Value):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """`developer` is OpenAI's later word for `system`. A protocol with one word for both sends that."""
    content: Annotated[Text, Field(repr=False)] = ""
    """May be empty only for the result of a tool, and beside tool calls or reasoning."""
    tool_calls: Annotated[
        tuple[ToolCall, ...], Field(max_length=TOOL_CALLS_MAX, exclude_if=not_)
    ] = ()
    """Of an assistant's message: the tools that it asked for."""
    tool_call_id: Annotated[ToolCallId | None, Field(exclude_if=not_)] = None
    """Of a tool's message: the tool call that this is the result of."""
    reasoning: Annotated[
        tuple[ReasoningBlock, ...], Field(max_length=BLOCKS_MAX, exclude_if=not_)
    ] = ()
    """Of an assistant's message: its reasoning, as `LLMResult.message` brings it."""
    cache: Annotated[CacheTime | None, Field(exclude_if=not_)] = None
    """
    Let the provider keep the prompt up to the end of this message.

    Only Anthropic has such marks. Other providers cache on their own, or not at all, and ignore it.
    """

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        """Refuse fields that belong to another role."""
        if self.role != "assistant" and (self.tool_calls or self.reasoning):
            raise ValueError("only a message of the assistant has tool_calls or reasoning")
        if (self.role == "tool") is (self.tool_call_id is None):
            raise ValueError("a message of a tool has a tool_call_id, and no other message has one")
        if not self.content and self.role != "tool" and not (self.tool_calls or self.reasoning):
            raise ValueError("the content of a message is empty")
        return self
