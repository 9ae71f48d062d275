"""What is read from responses of OpenAI's, and of servers that speak its protocol nearly."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.providers.http.usage import COUNT_FIELDS
from callgate.adapters.providers.openai_responses.responses_reply import reply_of
from callgate.adapters.providers.openai_responses.responses_request import request_json
from callgate.adapters.providers.openai_responses.turn_items import PROTOCOL
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.messages import Message, ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Anomaly, Usage
from callgate.services.review import flaw_of
from tests.unit.test_messages import TOOL, a_request

USAGE = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}
ASKED = ToolCall(id="call_1", name="add", arguments='{"a":1}')


def a_text(text: object = "pong", **fields: Any) -> dict[str, Any]:
    """A message of the output."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    } | fields


def a_call(**fields: Any) -> dict[str, Any]:
    """A tool call of the output."""
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "status": "completed"}
    return {**call, "name": "add", "arguments": '{"a":1}', **fields}


def a_thought(encrypted: str | None = "gAAA", **fields: Any) -> dict[str, Any]:
    """A reasoning item of the output."""
    thought: dict[str, Any] = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "encrypted_content": encrypted,
    }
    return {**thought, **fields}


def a_body(*items: object, **fields: object) -> bytes:
    """The bytes of a response with this output."""
    body = {"id": "resp_1", "status": "completed", "output": list(items), "usage": USAGE, **fields}
    return json.dumps(body).encode()


def read(
    body: bytes, headers: dict[str, str] | None = None, **request: Any
) -> ProviderReply | Failure:
    """The result of reading a body."""
    return reply_of(body, headers or {}, a_request(**request), ProviderEntry())


def reply(*items: object, **fields: object) -> ProviderReply:
    """The reply that is read of a response to a request with tools."""
    answer = read(a_body(*items, **fields), tools=[TOOL])
    assert isinstance(answer, ProviderReply)
    return answer


def test_all_fields_are_read() -> None:
    details = {
        "input_tokens": 900,
        "input_tokens_details": {"cached_tokens": 640, "cache_write_tokens": 100},
        "output_tokens": 77,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 977,
    }
    body = a_body(a_text(), usage=details, service_tier="flex", model="gpt-5", error=None)

    assert read(body, {"x-request-id": "req_7"}) == ProviderReply(
        texts=("pong",),
        finish_reason="stop",
        refusal=None,
        usage=Usage(
            input_tokens=900,
            cached_input_tokens=640,
            cache_write_tokens=100,
            output_tokens=77,
            reasoning_tokens=64,
        ),
        service_tier="flex",
        model="gpt-5",
        provider_request_id="req_7",
    )


def test_the_request_id_is_the_responses_id_without_a_header() -> None:
    assert reply(a_text()).provider_request_id == "resp_1"


def test_an_answer_in_parts_is_joined() -> None:
    parts = [{"type": "output_text", "text": "po"}, 7, {"type": "output_text", "text": "ng"}]

    assert reply(a_text(content=parts), a_text("!")).texts == ("pong!",)
    assert reply(a_text(content="pong")).texts == ("pong",)


def test_a_commentary_is_no_part_of_the_answer() -> None:
    """It would make JSON unreadable. Beside tool calls it is all there is."""
    commentary = a_text("I add.", phase="commentary")

    assert reply(commentary, a_text("3", phase="final_answer")).texts == ("3",)
    assert reply(commentary, a_call()).texts == ("I add.",)


def test_a_lone_surrogate_is_replaced() -> None:
    """JSON can express it and UTF-8 cannot."""
    answer = reply(a_thought("\ud83d"), a_text("ok \ud83d"))

    assert answer.texts == ("ok ?",)
    assert "?" in answer.reasoning[0].data
    assert ProviderReply.from_json(answer.to_json()) == answer


@pytest.mark.parametrize(
    ("fields", "ending", "code"),
    [
        ({"status": "completed"}, "stop", None),
        ({"status": "COMPLETED"}, "stop", None),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length", None),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            "content_filtered",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "steered"}}, "steered", "unknown_ending"),
        ({"status": "incomplete", "incomplete_details": {"reason": 7}}, "incomplete", "unknown_ending"),
        ({"status": "incomplete", "incomplete_details": None}, "incomplete", "unknown_ending"),
        ({"status": "cancelled"}, "abort", "broken_off"),
        ({"status": "expired"}, "expired", "unknown_ending"),
        ({"status": None}, None, "unknown_ending"),
        ({"status": 7}, None, "unknown_ending"),
    ],
)  # fmt: skip
def test_a_status_is_an_ending(
    fields: dict[str, Any], ending: str | None, code: str | None
) -> None:
    answer = reply(a_text(), **fields)
    flaw = flaw_of(answer, ())

    assert answer.finish_reason == ending
    assert (flaw and flaw.code) == code


@pytest.mark.parametrize("half", ["incomplete", "in_progress"])
def test_half_a_message_is_no_result(half: str) -> None:
    """Although the response says that it is completed."""
    flaw = flaw_of(reply(a_text(status=half)), ())

    assert flaw is not None
    assert (flaw.code, flaw.retryable) == ("unknown_ending", False)
    assert f"`{half}`" in flaw.message


@pytest.mark.parametrize("status", ["in_progress", "queued"])
@pytest.mark.parametrize("usage", [None, USAGE])
def test_a_response_in_the_background_is_no_result(status: str, usage: object) -> None:
    """Its usage is not the last one, and a retry would start another."""
    answer = read(a_body(a_text(), status=status, usage=usage))

    assert isinstance(answer, Failure)
    assert (answer.code, answer.retryable) == ("invalid_response", False)
    assert answer.billing is Billing.UNKNOWN


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("server_error", ("server_error", True, Billing.UNKNOWN)),
        ("rate_limit_exceeded", ("rate_limited", True, Billing.UNBILLED)),
        ("invalid_prompt", ("content_filtered", False, Billing.UNKNOWN)),
        ("bio_policy", ("content_filtered", False, Billing.UNKNOWN)),
        ("vector_store_timeout", ("invalid_response", True, Billing.UNKNOWN)),
    ],
)
def test_a_failed_response_is_a_failure(code: str, expected: object) -> None:
    """It is billed by its usage, if it names one."""
    error = {
        "code": code,
        "message": "private",
        "type": "invalid_request_error" if code == "invalid_prompt" else None,
    }
    silent = read(a_body(status="failed", error=error, usage=None))
    billed = read(a_body(status="failed", error=error))
    begun = read(a_body(a_text("po"), status="failed", error=error, usage=None))

    assert isinstance(silent, Failure)
    assert (silent.code, silent.retryable, silent.billing) == expected
    assert "private" not in silent.message
    assert isinstance(begun, Failure)
    assert begun.billing is Billing.UNKNOWN
    assert isinstance(billed, ProviderReply)
    assert billed.failure == replace(silent, billing=Billing.BY_USAGE)


def test_a_failed_response_may_say_nothing() -> None:
    answer = read(a_body(status="failed", usage=None))

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == ("invalid_response", Billing.UNKNOWN)


def test_a_refusal_is_read() -> None:
    answer = reply(a_text(content=[{"type": "refusal", "refusal": "no"}]))

    assert (answer.texts, answer.refusal) == (("",), "no")
    assert reply(a_text(content=[{"type": "refusal", "refusal": " "}])).refusal is None


def test_tool_calls_are_a_good_ending() -> None:
    answer = reply(a_call())

    assert (answer.tool_calls, answer.texts) == ((ASKED,), ("",))
    assert answer.finish_reason == "tool_calls"
    assert flaw_of(answer, ()) is None


def test_tool_calls_without_tools_are_no_result() -> None:
    answer = read(a_body(a_call()))

    assert isinstance(answer, ProviderReply)
    assert answer.tool_calls == ()
    flaw = flaw_of(answer, ())
    assert flaw is not None
    assert flaw.code == "unknown_ending"


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (a_call(call_id=None), {"id": "call_0"}),
        (a_call(arguments={"a": 1}), {}),
        (a_call(arguments=None), {"arguments": "{}"}),
        (a_call(name="add two"), {"name": "add_two"}),
    ],
    ids=["no id", "object", "no arguments", "odd name"],
)
def test_what_servers_send_instead_is_read(call: dict[str, Any], meant: dict[str, Any]) -> None:
    assert reply(call).tool_calls == (ASKED.model_copy(update=meant),)


def test_work_that_was_not_requested_has_no_known_price() -> None:
    """A search of the provider's costs a fee of its own, which the usage does not show."""
    for kind in ("web_search_call", None, ["message"]):
        answer = reply({"type": kind, "status": "completed"}, a_text())
        assert answer.anomalies == (Anomaly.PRICE_UNKNOWN,)
        assert answer.texts == ("pong",)


def test_reasoning_comes_back_and_can_be_sent_on() -> None:
    """In its order, with what the provider needs, and without ids of what it did not store."""
    summary = [{"type": "summary_text", "text": "hm"}]
    answer = reply(
        a_thought(summary=summary),
        a_text("I add.", phase="commentary"),
        a_thought("gBBB"),
        a_call(call_id=None),
    )
    (block,) = answer.reasoning
    turn = Message(
        role="assistant",
        content=answer.texts[0],
        tool_calls=answer.tool_calls,
        reasoning=answer.reasoning,
    )
    sent = json.loads(request_json(a_request(messages=[turn]), ProviderEntry()))["input"]

    assert (block.protocol, block.text) == (PROTOCOL, "hm")
    assert sent == [
        {"type": "reasoning", "summary": summary, "encrypted_content": "gAAA"},
        {"role": "assistant", "content": "I add.", "phase": "commentary"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gBBB"},
        {"type": "function_call", "call_id": "call_0", "name": "add", "arguments": '{"a":1}'},
    ]
    assert ProviderReply.from_json(answer.to_json()) == answer


def test_an_answer_without_reasoning_has_none() -> None:
    assert reply(a_text(), a_call()).reasoning == ()


def test_reasoning_that_used_up_the_bound_is_said() -> None:
    """OpenAI sends no message then."""
    incomplete = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

    for items in ((a_thought(),), ()):
        flaw = flaw_of(reply(*items, **incomplete), ())
        assert flaw is not None
        assert flaw.code == "output_truncated"


@pytest.mark.parametrize("body", [b"{}", b'{"object":"list","data":[]}', b'{"output":7}'])
def test_what_is_not_a_response_has_an_unknown_bill(body: bytes) -> None:
    answer = read(body)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == ("invalid_response", Billing.UNKNOWN)


def test_usage_without_a_response_is_billed() -> None:
    answer = read(json.dumps({"usage": USAGE}).encode())

    assert isinstance(answer, ProviderReply)
    flaw = flaw_of(answer, ())
    assert flaw is not None
    assert (flaw.code, flaw.billing) == ("empty_reply", Billing.BY_USAGE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats()
    | st.sampled_from(["error", "completed", "incomplete", "failed", "429", "message", "reasoning", "function_call"])
    | st.text(max_size=5) | st.just("\ud800"),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "output", "content", "text", "refusal", "usage", "error", "code", "id", "status", "type", "summary",
                    "incomplete_details", "reason", "service_tier", "phase", "call_id", "name", "arguments",
                    *(name for row in COUNT_FIELDS for name in row.path.split(".")),
                ]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@given(
    JSON
    | st.builds(
        lambda status, items, usage: {"status": status, "output": items, "usage": usage},
        st.sampled_from(["completed", "incomplete", "failed", "cancelled"]),
        st.lists(JSON, max_size=3),
        JSON | st.just(USAGE),
    )
)
def test_any_json_is_a_reply_or_a_failure(body: object) -> None:
    """Both can be stored and read back, and what is kept for the next turn can be sent."""
    answer = read(json.dumps(body).encode(), tools=[TOOL])

    if isinstance(answer, Failure):
        assert Failure.from_json(answer.to_json()) == answer
        return
    assert ProviderReply.from_json(answer.to_json()) == replace(answer, failure=None)
    for block in answer.reasoning:
        turn = Message(role="assistant", reasoning=(block,), tool_calls=answer.tool_calls)
        assert request_json(a_request(messages=[turn]), ProviderEntry())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_failure(body: bytes) -> None:
    """Nothing is raised."""
    answer = read(body)

    assert isinstance(answer, Failure)
    assert answer.billing is Billing.UNKNOWN
