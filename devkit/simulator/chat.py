"""
The chat-completions format of OpenAI: parse a request, and build the bytes of each kind of answer.

Pure functions without sockets. Source of the format: openai-python 3.54, `types/chat/chat_completion.py` and
`types/completion_usage.py`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal

from multidict import CIMultiDict

from devkit.simulator.conversation import (
    Said,
    UnmatchedResult,
    asked_last,
    chat_calls,
    chat_calls_text,
    chat_reasoning,
    check_results,
)
from devkit.simulator.script import ErrorBody, Kind, ReportedUsage, ScriptedCall, Step

CHAT_PATH = "/v1/chat/completions"
BYTES_PER_TOKEN = 4
CHOICES_MAX = 128
NOT_JSON = b"\xff\xfe<html>upstream connect error"

# How OpenAI names these errors. Other statuses get a type by their hundreds, and no code.
_ERRORS = {
    401: ErrorBody(type="invalid_request_error", code="invalid_api_key"),
    404: ErrorBody(type="invalid_request_error", code="model_not_found"),
    429: ErrorBody(type="requests", code="rate_limit_exceeded"),
}

_VALUES = {"string": "ok", "integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}
"""The values of properties, by type, in the answer to a request with a JSON schema; null for other types."""


WHO: dict[str, Literal["user", "tool"]] = {"user": "user", "tool": "tool"}


class BadRequest(ValueError):
    """A chat-completions provider would refuse the request."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The fields of a request that the simulator uses."""

    model: str
    asked_last: str
    """The last user message, and the results of tools after it."""
    prompt_bytes: int
    """The UTF-8 bytes of the texts of all messages, and of their tool calls."""
    choices: int
    completion_tokens_max: int | None
    """The limit of each choice."""
    response_format: Mapping[str, Any]
    service_tier: str
    forced: Mapping[str, Any] | None = None
    """Name and `parameters` of the tool that the answer must call."""

    @property
    def input_tokens(self) -> int:
        """The tokens of all messages, as the simulator counts them."""
        return _tokens(self.prompt_bytes)

    @property
    def output_tokens_max(self) -> int:
        """The most tokens of all choices together; 0 if the request does not say."""
        return (self.completion_tokens_max or 0) * self.choices

    @classmethod
    def parse(cls, body: bytes) -> ChatRequest:
        """
        Read a request body.

        Raises:
            BadRequest: The body is not a JSON object, a field is malformed, or a stream is requested.
        """
        return parsed(body, cls._from)

    @classmethod
    def _from(cls, fields: Mapping[str, Any]) -> ChatRequest:
        messages = fields["messages"]
        said = [
            Said(WHO.get(message["role"], "other"), content_of(message)) for message in messages
        ]
        check_results([_ids_of(message) for message in messages])
        texts = [one.text for one in said] + [chat_calls_text(message) for message in messages]
        tier = fields.get("service_tier") or "auto"
        return cls(
            model=str(fields["model"]),
            asked_last=asked_last(said),
            prompt_bytes=sum(len(utf8(text)) for text in texts),
            choices=_choices(fields.get("n")),
            completion_tokens_max=_completion_tokens_max(fields),
            response_format=fields.get("response_format") or {},
            service_tier="default" if tier == "auto" else str(tier),
            forced=_forced(fields),
        )


def parsed(body: bytes, read: Callable[[Mapping[str, Any]], ChatRequest]) -> ChatRequest:
    """Read a body of any protocol of OpenAI's; see `ChatRequest.parse`."""
    try:
        fields = json.loads(body)
        if fields.get("stream"):
            raise BadRequest("streams are not supported; send stream=false")
        return read(fields)
    except BadRequest:
        raise
    except UnmatchedResult as refusal:
        raise BadRequest(str(refusal)) from refusal
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadRequest(f"malformed request: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer, before a fault cuts it."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


Complete = Callable[[ChatRequest, Step, str], dict[str, Any]]
"""Builds the body of a complete answer with an id."""


def reply_to(chat: ChatRequest, step: Step) -> Reply:
    """Return the answer of a step to a request."""
    return reply_by(_completion, CHAT_PATH, chat, step)


def reply_by(complete: Complete, path: str, chat: ChatRequest, step: Step) -> Reply:
    """Return the answer of a step, in the protocol of `complete` and of the path."""
    answer_id, step = uuid.uuid4().hex, _as_forced(chat, step)
    headers = CIMultiDict({"Content-Type": "application/json", "x-request-id": f"req_{answer_id}"})
    match step.kind:
        case Kind.STATUS:
            status = step.status or 500
            body = error_body(status, step.error)
        case Kind.REDIRECT:
            status, body = step.status or 307, b""
            headers["Location"] = path
        case Kind.NOT_JSON:
            status, body = 200, NOT_JSON
        case Kind.WRONG_SCHEMA:
            status, body = 200, b'{"object": "list", "data": []}'
        case _:
            status, body = 200, json.dumps(complete(chat, step, answer_id)).encode()
    if step.retry_after_s is not None:
        headers["Retry-After"] = _retry_after(step.retry_after_s, step.retry_after_form)
    headers.update(step.headers)
    return Reply(status, headers, body)


def error_body(status: int, error: ErrorBody) -> bytes:
    """Return an error in the format of OpenAI. Missing fields get values that fit the status."""
    family = "server_error" if status >= 500 else "invalid_request_error"
    known = _ERRORS.get(status, ErrorBody(type=family))
    fields = {
        "message": error.message or f"The simulator was told to answer {status}.",
        "type": error.type or known.type,
        "param": error.param,
        "code": error.code or known.code,
    }
    return json.dumps({"error": fields}).encode()


def _completion(chat: ChatRequest, step: Step, answer_id: str) -> dict[str, Any]:
    text, finish_reason = text_of(chat, step)
    completion = {
        "id": f"chatcmpl-{answer_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "choices": [
            _choice(index, _message(step, text, answer_id), finish_reason)
            for index in range(0 if step.kind is Kind.EMPTY_CHOICES else chat.choices)
        ],
        "service_tier": step.service_tier or chat.service_tier,
        "system_fingerprint": "fp_simulator",
    }
    if step.kind is not Kind.NO_USAGE:
        completion["usage"] = _usage(chat, step.usage, written_bytes(step, text))
    return completion


def written_bytes(step: Step, text: str) -> int:
    """The bytes that the model wrote, without its reasoning."""
    calls = "".join(f"{call.name}{call.arguments}" for call in step.tool_calls)
    return len(utf8((step.refusal or text) + calls))


def text_of(chat: ChatRequest, step: Step) -> tuple[str, str]:
    """The text of the answer, and why it ended."""
    text, is_cut = _within(_answer_text(chat, step), chat.completion_tokens_max, step.kind)
    ending = "tool_calls" if step.tool_calls else "stop"
    return text, step.finish_reason or ("length" if is_cut else ending)


def _message(step: Step, text: str, answer_id: str) -> dict[str, Any]:
    content = text if step.refusal is None and (text or not step.tool_calls) else None
    said = {"role": "assistant", "content": content, "refusal": step.refusal}
    return {**said, **chat_calls(step, answer_id), **chat_reasoning(step, answer_id)}


def _choice(index: int, message: Mapping[str, Any], finish_reason: str) -> dict[str, Any]:
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason,
    }


def counts_of(chat: ChatRequest, usage: ReportedUsage, text_bytes: int) -> tuple[int, int]:
    """The input and output tokens to report."""
    prompt_tokens = usage.prompt_tokens
    if prompt_tokens is None:
        prompt_tokens = chat.input_tokens
    completion_tokens = usage.completion_tokens
    if completion_tokens is None:
        completion_tokens = _computed_completion_tokens(chat, usage.reasoning_tokens, text_bytes)
    return prompt_tokens, completion_tokens


def _usage(chat: ChatRequest, usage: ReportedUsage, text_bytes: int) -> dict[str, Any]:
    prompt_tokens, completion_tokens = counts_of(chat, usage, text_bytes)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _computed_completion_tokens(chat: ChatRequest, reasoning_tokens: int, text_bytes: int) -> int:
    """Return the tokens of all choices, each at most the limit of the request."""
    each = _tokens(text_bytes) + reasoning_tokens
    if chat.completion_tokens_max is not None:
        each = min(each, chat.completion_tokens_max)
    return each * chat.choices


def _answer_text(chat: ChatRequest, step: Step) -> str:
    if step.kind is Kind.HUGE_BODY:
        return "x" * step.huge_bytes
    if step.text is not None:
        return step.text
    if step.tool_calls:
        return ""
    match chat.response_format:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return json.dumps(_shallow_instance(schema))
        case {"type": "json_object"}:
            return "{}"
        case _:
            return "ok"


def _as_forced(chat: ChatRequest, step: Step) -> Step:
    """The step as the call of the tool that the request forces; its text, if it has one, is the arguments."""
    is_answer = step.kind is Kind.OK and step.refusal is None and not step.tool_calls
    if chat.forced is None or not is_answer:
        return step
    given = step.text or json.dumps(_shallow_instance(chat.forced["parameters"]))
    call = ScriptedCall(name=chat.forced["name"], arguments=given)
    return step.model_copy(update={"text": "", "tool_calls": (call,)})


def _forced(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    match fields.get("tool_choice"):
        case {"function": {"name": name}}:
            return forced_tool(name, [tool["function"] for tool in fields["tools"]])
        case "required":
            return forced_tool(None, [tool["function"] for tool in fields["tools"]])
        case _:
            return None


def forced_tool(
    name: str | None, tools: Iterable[Mapping[str, Any]], parameters: str = "parameters"
) -> Mapping[str, Any]:
    """
    The tool that a request forces.

    Args:
        name: None: some tool must be called, and the first one is.
        parameters: What the protocol calls the schema of a tool.

    Raises:
        BadRequest: There is no such tool.
    """
    for tool in tools:
        if name in (None, tool["name"]):
            return {"name": tool["name"], "parameters": tool.get(parameters) or {}}
    raise BadRequest(f"tool_choice names a tool that is not there: {name!r}")


def _shallow_instance(schema: Any) -> dict[str, Any]:
    """Return an object with a fixed value for each property; a deeper schema needs a `Step` with a text."""
    match schema:
        case {"properties": {**properties}}:
            return {
                str(name): _VALUES.get(str(node.get("type"))) if isinstance(node, dict) else None
                for name, node in properties.items()
            }
        case _:
            return {}


def _within(text: str, tokens_max: int | None, kind: Kind) -> tuple[str, bool]:
    """Return the text, cut at the token limit like by a provider, and whether it was cut."""
    if tokens_max is None or kind is Kind.HUGE_BODY:
        return text, False
    encoded = utf8(text)
    if _tokens(len(encoded)) <= tokens_max:
        return text, False
    return encoded[: tokens_max * BYTES_PER_TOKEN].decode(errors="ignore"), True


def _retry_after(delay_s: int, form: str) -> str:
    return str(delay_s) if form == "seconds" else formatdate(time.time() + delay_s, usegmt=True)


def content_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, without images and files."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _ids_of(message: Mapping[str, Any]) -> tuple[set[str], str | None]:
    """The tool calls of a message, and the one that it is the result of."""
    calls = {call["id"] for call in message.get("tool_calls") or ()}
    return calls, message["tool_call_id"] if message["role"] == "tool" else None


def _choices(n: int | None) -> int:
    choices = 1 if n is None else n
    if not 1 <= choices <= CHOICES_MAX:
        raise BadRequest(f"n is {choices}, not within 1 to {CHOICES_MAX}")
    return choices


def _completion_tokens_max(fields: Mapping[str, Any]) -> int | None:
    tokens_max: int | None = fields.get("max_completion_tokens")
    if tokens_max is None:
        tokens_max = fields.get("max_tokens")
    if tokens_max is not None and tokens_max < 1:
        raise BadRequest(f"max_completion_tokens is {tokens_max}, below 1")
    return tokens_max


def _tokens(utf8_bytes: int) -> int:
    return -(-utf8_bytes // BYTES_PER_TOKEN)


def utf8(text: str) -> bytes:
    """The bytes of a text."""
    # JSON can contain a lone surrogate, which UTF-8 cannot encode. A provider answers such a request too.
    return text.encode(errors="surrogatepass")
