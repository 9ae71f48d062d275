"""Replies of Anthropic's protocol, and what each means for the call and its bill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from callgate.domain.messages import Message
from tests.contract.fault_cases import faults
from tests.contract.reply_case import (
    CONTRADICTORY,
    COST,
    FULL_COST,
    IMPLAUSIBLE,
    MISSING,
    SCHEMA,
    ZERO,
    Case,
    Reply,
    dead,
)
from tests.support.anthropic_preset import PRESET

USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 7,
    "service_tier": "standard",
    "inference_geo": "global",
}
FULL = {**USAGE, "output_tokens": 100}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZGF0YQ"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}}
ADD = {"tools": ({"name": "add"},)}
MARKED = {"messages": (Message(role="user", content="words " * 200, cache="1h"),)}


def said(value: object = "fine") -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": value}


def message(
    *blocks: object, ending: object = "end_turn", usage: object = USAGE, **fields: Any
) -> Reply:
    """A message."""
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "sim-1",
        "stop_sequence": None,
    }
    return Reply(
        {**body, "content": list(blocks or [said()]), "stop_reason": ending, "usage": usage, **fields}
    )  # fmt: skip


def error(kind: str, status: int = 200, **details: Any) -> Reply:
    """An error, by default in the body of a 200."""
    inner = {"type": kind, "message": "no", **({"details": details} if details else {})}
    return Reply({"type": "error", "error": inner, "request_id": "req_1"}, status)


def with_usage(name: str, posted: int | None, *anomalies: str, **counts: object) -> Case:
    """A good answer with these counts; None leaves one out."""
    request: Any = counts.pop("request", {})
    usage = {key: value for key, value in {**USAGE, **counts}.items() if value is not None}
    right: dict[str, Any] = {} if posted is not None else {"usage_is_known": False}
    replies = (message(usage=usage),)
    return Case(name, replies, posted=posted, anomalies=anomalies, request=request, **right)


FINE = message()

_ANSWERS = (
    Case("an answer", (FINE,)),
    Case("an answer in two blocks", (message(said("fi"), said("ne")),)),
    Case("thoughts before the answer", (message(THOUGHT, REDACTED, said()),)),
    Case("a stop sequence", (message(ending="stop_sequence", stop_sequence="END"),)),
    Case("an ending in capitals", (message(ending="END_TURN"),)),
    Case("text that reached its bound", (message(ending="max_tokens", usage=FULL),), posted=FULL_COST),
    Case("text that reached the context window, its bound", (message(ending="model_context_window_exceeded"),)),
    Case("an unknown block beside the answer", (message({"type": "new"}, "odd", said()),)),
    Case("an unasked tool call beside the answer", (message(said(), CALL),)),
    Case("an ending that is declared good", (message(ending="done"),), entry={"good_endings": ["done"]}),
    Case(
        "an answer to a schema", (message(said('{"a": 1}')),), texts=('{"a": 1}',),
        request={"response_schema": SCHEMA},
    ),
    Case(
        "a fenced answer to a schema, as declared", (message(said('```json\n{"a": 1}\n```')),), texts=('{"a": 1}',),
        request={"response_schema": SCHEMA}, entry={"unwraps": ["fence"]},
    ),
)  # fmt: skip

_NO_ANSWERS = (
    dead("no blocks", message(content=[]), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("thoughts only", message(THOUGHT), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("no text", message(said("")), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("content of null", message(content=None), code="empty_reply"),
    dead("nothing but an id", Reply({"id": "msg_1"}), posted=None, attempts=2, code="invalid_response"),
    dead("a chat completion", Reply({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}),
         code="empty_reply"),
    dead(
        "refused", message(ending="refusal", stop_details={"type": "refusal", "category": "cyber"}),
        code="refused_by_model",
    ),
    dead(
        "refused before any output",
        message(content=[], ending="refusal", usage={**USAGE, "output_tokens": 0}),
        posted=11_000, code="refused_by_model",
    ),
    dead("refused, no usage", message(ending="refusal", usage=None), posted=None, code="refused_by_model",
         anomalies=MISSING, usage_is_known=False),
    dead("paused", message(ending="pause_turn"), code="unknown_ending", says="`pause_turn`"),
    dead("an unknown ending", message(ending="odd"), code="unknown_ending"),
    dead("no ending", message(ending=None), code="unknown_ending", says="`null`"),
    dead("a tool call that nobody offered", message(CALL, ending="tool_use"), code="unknown_ending",
         says="`tool_calls`"),
    dead("a tool call that reached its bound", message(CALL, ending="max_tokens"), code="output_truncated",
         request=ADD),
    dead(
        "thoughts used up the bound", message(THOUGHT, ending="max_tokens", usage=FULL), posted=FULL_COST,
        code="output_truncated", says="reasoning used it up",
    ),
    dead(
        "JSON that reached its bound", message(said('{"a": 1'), ending="max_tokens", usage=FULL),
        posted=FULL_COST, code="output_truncated", request={"response_schema": SCHEMA},
    ),
    dead(
        "an event stream that was not requested",
        Reply(
            raw=b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n',
            headers={"Content-Type": "text/event-stream"},
        ),
        posted=None, code="invalid_response", says="stream",
    ),
)  # fmt: skip

_ERRORS = (
    *(
        dead(f"{kind} as {status}", error(kind, status), posted=0, code=code)
        for kind, status, code in (
            ("invalid_request_error", 400, "bad_request"),
            ("authentication_error", 401, "authentication_failed"),
            ("billing_error", 402, "insufficient_quota"),
            ("permission_error", 403, "permission_denied"),
            ("not_found_error", 404, "not_found"),
            ("request_too_large", 413, "request_too_large"),
        )
    ),
    *(
        dead(f"{kind} in a 200", error(kind), posted=0, code=code, says="HTTP 200 with an error")
        for kind, code in (
            ("invalid_request_error", "bad_request"),
            ("authentication_error", "authentication_failed"),
            ("billing_error", "insufficient_quota"),
            ("not_found_error", "not_found"),
        )
    ),
    Case("429, then fine", (error("rate_limit_error", 429), FINE), attempts=2),
    Case("429 in a 200, then fine", (error("rate_limit_error"), FINE), attempts=2),
    dead("a spend limit, as 429", error("rate_limit_error", 429, error_code="enforced_spend_limit_reached"),
         posted=0, code="insufficient_quota"),
    dead("overloaded", error("overloaded_error", 529), posted=None, attempts=2, code="server_error"),
    dead("overloaded, in a 200", error("overloaded_error"), posted=None, attempts=2, code="server_error"),
    dead("an error of theirs", error("api_error", 500), posted=None, attempts=2, code="server_error"),
    dead("a gateway's 504", error("timeout_error", 504), posted=None, attempts=2, code="server_error"),
    Case("overloaded, free at this provider", (error("overloaded_error", 529), FINE), attempts=2,
         entry={"server_errors": "unbilled"}),
    dead("an error of no type", Reply({"type": "error", "error": {"message": "no"}}), posted=None, attempts=2,
         code="invalid_response"),
    dead("an error of null", Reply({"type": "error", "error": None}), posted=None, attempts=2,
         code="invalid_response"),
    dead("an error with usage", Reply({"type": "error", "error": {"type": "api_error"}, "usage": USAGE}),
         posted=2 * COST, attempts=2, code="server_error"),
    dead("an error beside half an answer", message(usage=None, error={"type": "overloaded_error"}), posted=None,
         attempts=2, code="server_error"),
    Case("409, then fine", (error("conflict_error", 409), FINE), attempts=2),
)  # fmt: skip

_USAGES = (
    with_usage("read from the cache", 100_000 + 90_000 + 14_000, input_tokens=100, cache_read_input_tokens=900),
    with_usage(
        "written for five minutes", 100_000 + 900 * 1_250 + 14_000, input_tokens=100, cache_creation_input_tokens=900,
        cache_creation={"ephemeral_5m_input_tokens": 900, "ephemeral_1h_input_tokens": 0},
    ),
    with_usage(
        "written for an hour and for five minutes", 11_000 + 300 * 1_250 + 600 * 2_000 + 14_000,
        cache_creation_input_tokens=900,
        cache_creation={"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 600}, request=MARKED,
    ),
    with_usage(
        "written, without saying for how long", 11_000 + 900 * 1_250 + 14_000, cache_creation_input_tokens=900,
        cache_creation=None,
    ),
    with_usage(
        "written for an hour, as was asked", 11_000 + 900 * 2_000 + 14_000, cache_creation_input_tokens=900,
        cache_creation=None, request=MARKED,
    ),
    with_usage(
        "written in parts that are less than the whole", 11_000 + 300 * 1_250 + 600 * 2_000 + 14_000, *CONTRADICTORY,
        cache_creation_input_tokens=900,
        cache_creation={"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 1},
    ),
    with_usage(
        "written in parts that are more than the whole", 11_000 + 300 * 1_250 + 600 * 2_000 + 14_000, *CONTRADICTORY,
        cache_creation_input_tokens=0,
        cache_creation={"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 600},
    ),
    with_usage("thoughts are output", COST, output_tokens_details={"thinking_tokens": 5}),
    with_usage("all that was allowed", FULL_COST, output_tokens=100),
    with_usage("above the bound", None, *IMPLAUSIBLE, output_tokens=101),
    with_usage("a million for a few words", None, *IMPLAUSIBLE, input_tokens=10**6),
    with_usage("a million read from the cache", None, *IMPLAUSIBLE, cache_read_input_tokens=10**6),
    with_usage("negative", None, *IMPLAUSIBLE, input_tokens=-11),
    with_usage("a negative write", None, *IMPLAUSIBLE, cache_creation={"ephemeral_1h_input_tokens": -1}),
    with_usage("half a token", None, *IMPLAUSIBLE, output_tokens=7.5),
    with_usage("zeros", None, *ZERO, input_tokens=0, output_tokens=0),
    with_usage("no output", None, *MISSING, output_tokens=None),
    with_usage("counts of null", COST, cache_creation_input_tokens=None, cache_read_input_tokens=None,
               cache_creation=None, service_tier=None),
    Case("no usage", (message(usage=None),), posted=None, anomalies=MISSING, usage_is_known=False),
    Case("a usage in words", (message(usage="much"),), posted=None, anomalies=MISSING, usage_is_known=False),
    with_usage("a tier that was not requested", COST, "tier_unasked", service_tier="batch"),
    Case("a tier without a price", (message(usage={**USAGE, "service_tier": "priority"}),), posted=None,
         anomalies=("price_unknown",)),
    with_usage("inference in the US only, which costs more", None, "price_unknown", inference_geo="us"),
    with_usage("a model before there were places", COST, inference_geo="not_available"),
    with_usage("fast mode, which costs more", None, "price_unknown", speed="fast"),
)  # fmt: skip

MESSAGES = (
    *(
        replace(case, name=f"Messages: {case.name}", entry={**PRESET, **case.entry})
        for case in (*_ANSWERS, *_NO_ANSWERS, *_ERRORS, *_USAGES)
    ),
    *faults("Messages", FINE, **PRESET),
)
