"""
Writes the JSON body of a request for a message. `message_reply` reads the reply.

Source: Anthropic API reference, "Create a Message", and the guides "Prompt caching", "Extended thinking", "Effort",
"Structured outputs" and "Tool use" (platform.claude.com, 2026-11-29); `anthropic` 2.14, `types/message_create_params`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import dropwhile, groupby, takewhile
from operator import itemgetter
from typing import Any

from callgate.adapters.providers.http.failures import Inexpressible
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.dialect import SYSTEM_ROLES
from callgate.domain.messages import CacheTime, Message, ReasoningBlock, Tool, ToolChoice
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import sent_schema

PROTOCOL = "anthropic"
STANDARD_TIER = "standard_only"
"""With `auto`, the default, the provider could serve a request at another tier than its hold was priced at."""
THINKING = ("thinking", "redacted_thinking")
"""The types of reasoning blocks. No other block is sent on: the tokens of an image, for example, have no bound here."""
NOT_JSON = "it holds a lone surrogate, or a number that is not finite"
UNREAD_THOUGHT = "send reasoning blocks on as they came"
TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}

Block = dict[str, Any]


def request_json(request: LLMRequest, entry: ProviderEntry) -> bytes:
    """
    Write the request as JSON in UTF-8. Only fields that the request sets are sent.

    Raises:
        Inexpressible: A reasoning block of this protocol is not one that this adapter has read from a reply,
            or the request holds what JSON cannot have.
    """
    thinking, output_config = _thinking(request), _output_config(request, entry)
    fields: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "system": list(_system(request.messages, entry)) or None,
        "messages": _turns(request.messages, entry),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": request.stop or None,
        "service_tier": STANDARD_TIER if entry.sends_service_tier else None,
        "thinking": thinking,
        "output_config": output_config or None,
        "tools": [_tool(tool, entry) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice),
    }
    extra = json.loads(request.extra) if request.extra else {}
    # Names that callgate writes itself are not allowed in `extra`; see `reserved_fields.RESERVED_FIELDS`.
    given = {**extra, **{name: value for name, value in fields.items() if value is not None}}
    try:
        return json.dumps(
            given, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except ValueError as exc:
        raise Inexpressible(NOT_JSON) from exc


def _thinking(request: LLMRequest) -> Block | None:
    """How the model may think. Its tokens count towards `max_tokens`."""
    if request.thinking_tokens is not None:
        return {"type": "enabled", "budget_tokens": request.thinking_tokens}
    return {"type": "disabled"} if request.reasoning_effort == "none" else None


def _output_config(request: LLMRequest, entry: ProviderEntry) -> Block:
    """Effort, and the schema of the answer in the caller's order of keys."""
    config: Block = {}
    if request.reasoning_effort not in (None, "none"):
        config["effort"] = request.reasoning_effort
    if sent := sent_schema(request, entry):
        config["format"] = {"type": "json_schema", "schema": json.loads(sent.text)}
    return config


def _system(messages: Iterable[Message], entry: ProviderEntry) -> Iterator[Block]:
    """The blocks of the system and developer messages that stand first."""
    for message in takewhile(_is_system, messages):
        yield from _content(message, entry)


def _turns(messages: Iterable[Message], entry: ProviderEntry) -> list[Block]:
    """
    Turns of user and assistant by turns: the blocks of consecutive messages of one of them are one message.

    A system message among them stays where it is. Few models accept that; see `ProviderEntry.system_first`.
    """
    said = (
        (_role(message), _content(message, entry)) for message in dropwhile(_is_system, messages)
    )
    # Nothing is left of a message that had only the thoughts of another protocol. An empty turn is refused.
    spoken = (turn for turn in said if turn[1])
    return [
        {"role": role, "content": [block for _, blocks in turn for block in blocks]}
        for role, turn in groupby(spoken, itemgetter(0))
    ]


def _is_system(message: Message) -> bool:
    return message.role in SYSTEM_ROLES


def _role(message: Message) -> str:
    """Results of tools are said by the user."""
    if _is_system(message):
        return "system"
    return "assistant" if message.role == "assistant" else "user"


def _content(message: Message, entry: ProviderEntry) -> list[Block]:
    """The blocks of one message: thoughts first, as they came, then text, then tool calls."""
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        if message.content:
            result["content"] = message.content
        return _marked([result], message.cache, entry)
    thoughts = [_thought(block) for block in message.reasoning if block.protocol == PROTOCOL]
    # An empty text is refused, and a blank one too: models write such texts before their tool calls.
    is_said = message.content.strip() or not (thoughts or message.tool_calls)
    said = [_text(message.content)] if message.content and is_said else []
    said += [
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": json.loads(call.arguments.strip() or "{}"),
        }
        for call in message.tool_calls
    ]
    return [*thoughts, *_marked(said, message.cache, entry)]


def _thought(block: ReasoningBlock) -> Block:
    """A block of thoughts as the provider sent it."""
    try:
        thought = json.loads(block.data)
    except (ValueError, RecursionError) as exc:
        raise Inexpressible(UNREAD_THOUGHT) from exc
    if not isinstance(thought, dict) or thought.get("type") not in THINKING:
        raise Inexpressible(UNREAD_THOUGHT)
    return thought


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _marked(blocks: list[Block], cache: CacheTime | None, entry: ProviderEntry) -> list[Block]:
    """The blocks with a cache mark at the last one. Thoughts cannot have one."""
    if cache is not None and blocks and entry.cache_marks_max is not None:
        blocks[-1]["cache_control"] = {"type": "ephemeral", "ttl": cache}
    return blocks


def _tool(tool: Tool, entry: ProviderEntry) -> Block:
    fields: Block = {"name": tool.name, "input_schema": json.loads(tool.parameters)}
    if tool.description:
        fields["description"] = tool.description
    (marked,) = _marked([fields], tool.cache, entry)
    return marked


def _tool_choice(choice: str | ToolChoice | None) -> Block | None:
    if isinstance(choice, ToolChoice):
        return {"type": "tool", "name": choice.name}
    return None if choice is None else {"type": TOOL_CHOICES[choice]}
