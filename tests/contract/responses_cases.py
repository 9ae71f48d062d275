"""Replies of OpenAI's Responses protocol, and what each means for the call and its bill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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

PROTOCOL = "openai_responses"
ENTRY: Mapping[str, Any] = {"protocol": PROTOCOL}
USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 18,
}
FULL = {**USAGE, "output_tokens": 100, "total_tokens": 111}
CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FILTERED = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"}
ADD = {"tools": ({"name": "add"},)}


def message(text: object = "fine", **fields: Any) -> dict[str, Any]:
    """A message of the output."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    } | fields


def response(*items: object, usage: object = USAGE, **fields: Any) -> Reply:
    """A response."""
    body = {"id": "resp_1", "object": "response", "status": "completed", "error": None}
    return Reply({**body, "output": list(items or [message()]), "usage": usage, **fields})


def failed(code: str, usage: object = None, *items: object) -> Reply:
    """A response that failed."""
    error = {"code": code, "message": "no"}
    return Reply(
        {"id": "resp_1", "status": "failed", "error": error, "output": [*items], "usage": usage}
    )


def with_usage(name: str, posted: int | None, *anomalies: str, **counts: object) -> Case:
    """A good answer with these counts; None leaves one out."""
    usage = {key: value for key, value in {**USAGE, **counts}.items() if value is not None}
    right: dict[str, Any] = {} if posted is not None else {"usage_is_known": False}
    return Case(name, (response(usage=usage),), posted=posted, anomalies=anomalies, **right)


FINE = response()

_ANSWERS = (
    Case("an answer", (FINE,)),
    Case("reasoning before the answer", (response(THOUGHT, message()),)),
    Case("an answer in two messages", (response(message("fi"), message("ne")),)),
    Case("a commentary before the answer", (response(message("hm", phase="commentary"), message()),)),
    Case("a blank refusal", (response(message(content=[{"type": "refusal", "refusal": " "}, {"text": "fine"}])),)),
    Case("text that reached its bound", (response(usage=FULL, **CUT),), posted=FULL_COST),
    Case(
        "an answer to a schema",
        (response(message('{"a": 1}')),),
        texts=('{"a": 1}',),
        request={"response_schema": SCHEMA},
    ),
    Case(
        "a fenced answer to a schema, as declared",
        (response(message('```json\n{"a": 1}\n```')),),
        texts=('{"a": 1}',),
        request={"response_schema": SCHEMA},
        entry={"unwraps": ["fence"]},
    ),
    Case(
        "work that was not requested",
        (response({"type": "web_search_call", "status": "completed"}, message()),),
        posted=None,
        anomalies=("price_unknown",),
        usage_is_known=False,
    ),
    Case("cancelled, then fine", (response(status="cancelled"), FINE), posted=2 * COST, attempts=2),
    Case("no status, as declared", (response(status=None),), entry={"good_endings": ["null"]}),
)  # fmt: skip

_NO_ANSWERS = (
    dead("no output", response(output=[]), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("reasoning only", response(THOUGHT), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("no text", response(message("")), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("usage only", Reply({"usage": USAGE}), code="empty_reply"),
    dead("nothing but an id", Reply({"id": "resp_1"}), posted=None, attempts=2, code="invalid_response"),
    dead("a refusal", response(message(content=[{"type": "refusal", "refusal": "no"}])), code="refused_by_model"),
    dead("filtered", response(**FILTERED), code="content_filtered"),
    dead("filtered, no output", response(output=[], **FILTERED), code="content_filtered"),
    *(
        dead(
            f"reasoning used up the bound, {name}", response(output=items, usage=FULL, **CUT), posted=FULL_COST,
            code="output_truncated", says="reasoning used it up",
        )
        for name, items in (("and is there", [THOUGHT]), ("and is not there", []))
    ),
    dead(
        "reasoning used up the bound, and no tokens are said of it",
        response(output=[], usage={**USAGE, "output_tokens": 0, "total_tokens": 11}, **CUT), posted=None,
        code="output_truncated", anomalies=ZERO, usage_is_known=False,
    ),
    dead(
        "JSON that reached its bound", response(message('{"a": 1', status="incomplete"), usage=FULL, **CUT),
        posted=FULL_COST, code="output_truncated", request={"response_schema": SCHEMA},
    ),
    dead("a tool call that nobody offered", response(CALL), code="unknown_ending", says="`tool_calls`"),
    dead("a tool call that reached its bound", response(CALL, **CUT), code="output_truncated", request=ADD),
    dead("half a message", response(message(status="in_progress")), code="unknown_ending", says="`in_progress`"),
    dead("cancelled", response(status="cancelled"), posted=2 * COST, attempts=2, code="broken_off"),
    dead("steered", response(status="incomplete", incomplete_details={"reason": "steered"}), code="unknown_ending"),
    dead("no status", response(status=None), code="unknown_ending", says="`null`"),
    *(
        dead(f"not finished: {status}, {name}", reply, posted=None, code="invalid_response", says="unfinished")
        for status in ("queued", "in_progress")
        for name, reply in (
            ("with usage", response(status=status)), ("without", response(output=[], status=status, usage=None)),
        )
    ),
    dead(
        "an event stream that was not requested",
        Reply(
            raw=b'event: response.created\ndata: {"type":"response.created"}\n\n',
            headers={"Content-Type": "text/event-stream"},
        ),
        posted=None, code="invalid_response", says="stream",
    ),
    dead("a chat completion", Reply({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}),
         code="empty_reply"),
)  # fmt: skip

_ERRORS = (
    Case("failed for its rate, then fine", (failed("rate_limit_exceeded"), FINE), attempts=2),
    Case("429 in a 200, then fine", (Reply({"error": {"code": 429}}), FINE), attempts=2),
    dead("402 in a 200", Reply({"error": {"code": 402, "message": "no credit"}}), posted=0, code="insufficient_quota"),
    dead("an error beside half a message", response({**message("half"), "error": {"code": 502}}), posted=2 * COST,
         attempts=2, code="server_error"),
    dead("failed", failed("server_error"), posted=None, attempts=2, code="server_error"),
    Case(
        "failed, free at this provider", (failed("server_error"), FINE), attempts=2,
        entry={"server_errors": "unbilled"},
    ),
    dead("failed, with usage", failed("server_error", USAGE), posted=2 * COST, attempts=2, code="server_error"),
    dead(
        "failed for its rate, after half an answer", failed("rate_limit_exceeded", None, message("half")),
        posted=None, attempts=2, code="rate_limited",
    ),
    dead("failed, and says nothing", response(status="failed", usage=None, output=[]), posted=None, attempts=2,
         code="invalid_response"),
    *(
        dead(f"failed by policy: {code}", failed(code), posted=None, code="content_filtered", says="policy")
        for code in ("invalid_prompt", "bio_policy", "misalignment_policy_violation")
    ),
    dead("400", Reply({"error": {"code": "unknown_parameter", "param": "include"}}, 400), posted=0, code="bad_request",
         says="include"),
)  # fmt: skip

_USAGES = (
    with_usage(
        "cached and thought", 100_000 + 90_000 + 20_000, input_tokens=1000, output_tokens=10, total_tokens=1010,
        input_tokens_details={"cached_tokens": 900}, output_tokens_details={"reasoning_tokens": 4},
    ),
    with_usage(
        "written to the cache", 1_000_000 + 20_000, input_tokens=1000, output_tokens=10, total_tokens=1010,
        input_tokens_details={"cached_tokens": 0, "cache_write_tokens": 900},
    ),
    with_usage(
        "reasoning beside the output, as the total shows", 100_000 + 90 * 2_000, input_tokens=100, output_tokens=5,
        total_tokens=190, output_tokens_details={"reasoning_tokens": 85},
    ),
    with_usage("no total", COST, total_tokens=None),
    with_usage("no output, but a total", COST, output_tokens=None),
    with_usage("no details", COST, input_tokens_details=None, output_tokens_details=None),
    with_usage("the bound", 211_000, output_tokens=100, total_tokens=111),
    with_usage("above the bound", None, *IMPLAUSIBLE, output_tokens=101, total_tokens=112),
    with_usage("a million for a few words", None, *IMPLAUSIBLE, input_tokens=10**6, total_tokens=None),
    with_usage("negative", None, *IMPLAUSIBLE, input_tokens=-11),
    with_usage("half a token", None, *IMPLAUSIBLE, output_tokens=7.5),
    with_usage("zeros", None, *ZERO, input_tokens=0, output_tokens=0, total_tokens=0),
    with_usage("a total only", None, *MISSING, input_tokens=None, output_tokens=None),
    with_usage("a total above the sum", 11_000 + 88 * 2_000, *CONTRADICTORY, total_tokens=99),
    with_usage("more cached than read", 11_000 + 1_200 + 14_000, *CONTRADICTORY, total_tokens=None,
               input_tokens_details={"cached_tokens": 12}),
    Case("no usage", (response(usage=None),), posted=None, anomalies=MISSING, usage_is_known=False),
    dead("filtered, no usage", response(usage=None, **FILTERED), posted=None, code="content_filtered",
         anomalies=MISSING, usage_is_known=False),
    Case("a tier that was not requested", (response(service_tier="scale"),), anomalies=("tier_unasked",)),
    Case("a known tier without a price", (response(service_tier="priority"),), posted=None,
         anomalies=("price_unknown",)),
)  # fmt: skip

RESPONSES = (
    *(
        replace(case, name=f"Responses: {case.name}", entry={**ENTRY, **case.entry})
        for case in (*_ANSWERS, *_NO_ANSWERS, *_ERRORS, *_USAGES)
    ),
    *faults("Responses", FINE, **ENTRY),
)
