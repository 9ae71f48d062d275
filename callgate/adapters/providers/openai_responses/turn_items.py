"""
The items of one turn of the assistant: what is kept of an answer's items, and how they are sent on.

A message has a text, tool calls and reasoning, each by itself. A response has items in an order, and OpenAI refuses
reasoning without the item that followed it. So the order is kept beside the reasoning, in one `ReasoningBlock` per
answer: a JSON list with each reasoning item as it came, and a reference for each other item.

Ids of items are not sent on. They name what a provider has stored; callgate has nothing stored, and Azure refuses ids
then. Source: ResponseItem in OpenAI's own client (openai/codex, protocol/src/models.rs, 2026-11), and the pull
request vercel/ai#12689 (2026-02).

What is sent on was in the hands of the caller. Some items of the protocol add tools to a request, which cost money. So
an item is built from the fields that are known, and nothing else is copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from callgate.adapters.providers.http.reply_body import joined, text_of
from callgate.domain import bounded_json
from callgate.domain.messages import Message, ReasoningBlock, ToolCall

PROTOCOL = "openai_responses"
PHASES = ("commentary", "final_answer")
"""What a message of the model is. Dropping it makes newer models worse (openai-python 3.54, EasyInputMessageParam)."""


def block_of(
    items: Sequence[Mapping[str, Any]],
    message: Mapping[str, Any] | None,
    calls: Sequence[ToolCall],
) -> ReasoningBlock | None:
    """
    What the next turn needs of an answer, besides its text and its tool calls; None if there is nothing.

    Args:
        message: The item that the text begins in.
        calls: The tool calls, as they were read.
    """
    ids = iter(calls)
    entries = [entry for item in items if (entry := _entry(item, message, ids))]
    if not any(entry["type"] == "reasoning" or "phase" in entry for entry in entries):
        return None
    thoughts = [entry for entry in entries if entry["type"] == "reasoning"]
    data = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    return ReasoningBlock(
        protocol=PROTOCOL,
        text="\n\n".join(filter(None, map(_thought, thoughts))),
        data=_plain(data),
    )


def _entry(
    item: Mapping[str, Any], message: Mapping[str, Any] | None, calls: Iterator[ToolCall]
) -> dict[str, Any] | None:
    """An item as it is kept: reasoning whole, of others only what the message does not have."""
    match item.get("type"):
        case "reasoning":
            return dict(item)
        case "function_call":
            return {"type": "function_call", "call_id": next(calls).id}
        case "message" if item is message:
            phase = item.get("phase")
            return {"type": "message", **({"phase": phase} if phase in PHASES else {})}
        case _:
            return None


def _thought(item: Mapping[str, Any]) -> str:
    """The thoughts of a reasoning item, else their summary. OpenAI shows neither, unless `extra` asks for it."""
    parts = (joined(item.get("content"), ("text",)), joined(item.get("summary"), ("text",)))
    return next(filter(None, parts), "")


def items_of(message: Message) -> Iterator[dict[str, Any]]:
    """The input items of a message of the assistant, in the order in which they came."""
    content, calls = message.content, list(message.tool_calls)
    for entry in _entries(message):
        match entry.get("type"):
            case "reasoning":
                yield from _reasoning(entry)
            case "message" if content:
                yield _text(content, entry.get("phase"))
                content = ""
            case "function_call":
                for call in [call for call in calls if call.id == entry.get("call_id")][:1]:
                    calls.remove(call)
                    yield _call(call)
            case _:
                pass
    if content:
        yield _text(content)
    yield from map(_call, calls)


def _entries(message: Message) -> Iterator[dict[str, Any]]:
    """What was kept of the answer. A block that is not of this protocol, or not as it was written, has nothing."""
    for block in message.reasoning:
        if block.protocol == PROTOCOL:
            try:
                listed = bounded_json.loads(block.data.encode())
            except ValueError:
                continue
            yield from (entry for entry in _dicts(listed))


def _reasoning(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A reasoning item. Without its content it would refer to what the provider has not stored."""
    encrypted = text_of(entry.get("encrypted_content"))
    content = [*_parts(entry.get("content"), "reasoning_text")]
    if encrypted or content:
        summary = [*_parts(entry.get("summary"), "summary_text")]
        item: dict[str, Any] = {"type": "reasoning", "summary": summary}
        if content:
            item["content"] = content
        if encrypted:
            item["encrypted_content"] = encrypted
        yield item


def _parts(parts: object, kind: str) -> Iterator[dict[str, str]]:
    for part in _dicts(parts):
        if (text := text_of(part.get("text"))) is not None:
            yield {"type": kind, "text": text}


def _text(content: str, phase: object = None) -> dict[str, Any]:
    item = {"role": "assistant", "content": content}
    return {**item, "phase": phase} if phase in PHASES else item


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _dicts(values: object) -> Iterator[dict[str, Any]]:
    yield from (v for v in (values if isinstance(values, list) else ()) if isinstance(v, dict))


def _plain(text: str) -> str:
    return text_of(text) or ""
