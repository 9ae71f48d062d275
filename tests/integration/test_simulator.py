"""The answers and faults of the simulator, as a real AsyncOpenAI client receives them."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime

import aiohttp
import httpx2
import openai
import pytest
from pydantic import BaseModel

from devkit.simulator.simulator import (
    ErrorBody,
    Kind,
    ReportedUsage,
    Rule,
    Simulator,
    Step,
)
from tests.support.simulator_client import READ_TIMEOUT_S, Ask, only


class Invoice(BaseModel):
    number: str
    total: int


def test_the_default_answer_is_a_complete_chat_completion(ask: Ask) -> None:
    """Without a script, every request is answered correctly and at once."""
    completion = ask(n=2)

    assert [choice.message.content for choice in completion.choices] == ["ok", "ok"]
    assert completion.choices[0].finish_reason == "stop"
    assert completion.id.startswith("chatcmpl-")
    assert completion._request_id.startswith("req_")
    assert completion.usage.total_tokens == 4
    assert completion.service_tier == "default"


def test_a_requested_schema_is_satisfied(ask: Ask) -> None:
    """Structured output parses into the class whose schema was sent."""
    completion = ask("parse", response_format=Invoice)

    assert completion.choices[0].message.parsed == Invoice(number="ok", total=0)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_an_error_status_is_raised_as_the_clients_own_class(
    provider: Simulator, ask: Ask, status: int, expected: type[openai.APIStatusError]
) -> None:
    """An error body has OpenAI's form, so the client finds code, type and request id in it."""
    error = ErrorBody(code="some_code", type="some_type", message="some message")
    provider.script(only(Step(kind=Kind.STATUS, status=status, error=error)))

    with pytest.raises(expected) as raised:
        ask()

    assert (raised.value.code, raised.value.type) == ("some_code", "some_type")
    assert "some message" in raised.value.message
    assert str(raised.value.request_id).startswith("req_")


def test_retry_after_comes_in_seconds(provider: Simulator, ask: Ask) -> None:
    """A rate limit gives the wait in whole seconds."""
    provider.script(only(Step(kind=Kind.STATUS, status=429, retry_after_s=7)))

    with pytest.raises(openai.RateLimitError) as raised:
        ask()

    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.code == "rate_limit_exceeded"


def test_retry_after_comes_as_a_date(provider: Simulator, ask: Ask) -> None:
    """A rate limit may give an HTTP date instead."""
    step = Step(kind=Kind.STATUS, status=503, retry_after_s=60, retry_after_form="http-date")
    provider.script(only(step))
    asked_at = time.time()

    with pytest.raises(openai.InternalServerError) as raised:
        ask()

    retry_at = parsedate_to_datetime(raised.value.response.headers["retry-after"])
    assert asked_at + 59 <= retry_at.timestamp() <= time.time() + 60


def test_a_hang_ends_in_the_clients_timeout(provider: Simulator, ask: Ask) -> None:
    """A hanging provider sends nothing, not even a status."""
    provider.script(only(Step(kind=Kind.HANG)))

    with pytest.raises(openai.APITimeoutError) as raised:
        ask(timeout=READ_TIMEOUT_S)

    assert isinstance(raised.value.__cause__, httpx2.ReadTimeout)
    assert provider.requests().records[0].status is None


def test_a_reset_before_headers_is_a_connection_error(
    provider: Simulator, ask: Ask, transport: str
) -> None:
    """
    The request arrived and nothing came back.

    openai's aiohttp transport names this a connect timeout, as if nothing had been sent; only the
    cause of the cause, which is no ClientConnectorError, tells that it was.
    """
    provider.script(only(Step(kind=Kind.RESET_BEFORE_HEADERS)))

    with pytest.raises(openai.APIConnectionError) as raised:
        ask()

    cause = raised.value.__cause__
    if transport == "httpx":
        assert isinstance(cause, httpx2.ReadError)
    else:
        assert isinstance(cause, httpx2.ConnectTimeout)
        assert isinstance(cause.__cause__, aiohttp.ClientOSError)
        assert not isinstance(cause.__cause__, aiohttp.ClientConnectorError)
    assert provider.requests().records[0].status is None


@pytest.mark.parametrize("kind", [Kind.RESET_AFTER_HEADERS, Kind.TRUNCATED_BODY])
def test_an_answer_cut_short_is_a_connection_error(
    provider: Simulator, ask: Ask, kind: Kind
) -> None:
    """A 200 without its body is not an answer, but may have been paid for."""
    provider.script(only(Step(kind=kind)))

    with pytest.raises(openai.APIConnectionError) as raised:
        ask()

    assert isinstance(raised.value.__cause__, httpx2.ReadError | httpx2.RemoteProtocolError)
    assert not isinstance(raised.value, openai.APITimeoutError)
    assert provider.requests().records[0].status == 200


def test_a_body_that_is_not_json_is_a_decoding_error_of_the_client(
    provider: Simulator, ask: Ask
) -> None:
    """The client raises an error of `json`, not one of `openai`."""
    provider.script(only(Step(kind=Kind.NOT_JSON)))

    with pytest.raises(json.JSONDecodeError):
        ask()


def test_a_body_of_another_content_type_is_returned_as_text(provider: Simulator, ask: Ask) -> None:
    """The client returns the HTML page of a proxy as a str instead of a completion."""
    provider.script(only(Step(kind=Kind.NOT_JSON, headers={"content-type": "text/html"})))

    assert isinstance(ask(), str)


def test_a_slow_drip_passes_a_read_timeout_that_it_exceeds(provider: Simulator, ask: Ask) -> None:
    """The timeout of a single read does not limit the whole request; only a deadline does."""
    provider.script(only(Step(kind=Kind.SLOW_DRIP, drip_s=2 * READ_TIMEOUT_S)))
    started_s = time.monotonic()

    completion = ask(timeout=READ_TIMEOUT_S)

    assert time.monotonic() - started_s >= 2 * READ_TIMEOUT_S
    assert completion.choices[0].message.content == "ok"


def test_empty_choices_arrive_empty(provider: Simulator, ask: Ask) -> None:
    """An answer without choices may have been paid for."""
    provider.script(only(Step(kind=Kind.EMPTY_CHOICES)))

    completion = ask()

    assert completion.choices == []
    assert completion.usage is not None


def test_a_missing_usage_arrives_as_none(provider: Simulator, ask: Ask) -> None:
    """An answer may have no usage."""
    provider.script(only(Step(kind=Kind.NO_USAGE)))

    completion = ask()

    assert completion.usage is None
    assert completion.choices[0].message.content == "ok"


def test_a_wrong_schema_passes_the_client_unnoticed(provider: Simulator, ask: Ask) -> None:
    """The client does not validate: a 200 of another form becomes a completion full of None."""
    provider.script(only(Step(kind=Kind.WRONG_SCHEMA)))

    completion = ask()

    assert (completion.choices, completion.usage) == (None, None)


def test_a_redirect_not_followed_is_a_status_error(provider: Simulator, ask: Ask) -> None:
    """With redirects off, one request leaves and its 307 is an error."""
    provider.script(only(Step(kind=Kind.REDIRECT)))

    with pytest.raises(openai.APIStatusError) as raised:
        ask()

    assert raised.value.status_code == 307
    assert provider.counts().total == 1


def test_a_redirect_followed_shows_as_a_second_request(provider: Simulator, ask: Ask) -> None:
    """A client that follows a redirect sends two requests with one attempt id, and both are counted."""
    provider.script([Rule(reply=[Step(kind=Kind.REDIRECT), Step()])])

    completion = ask(follow=True)

    assert completion.choices[0].message.content == "ok"
    assert provider.counts().repeated == {"attempt-1": 2}


def test_a_huge_body_arrives_whole(provider: Simulator, ask: Ask) -> None:
    """The provider decides the size of an answer, whatever limit was sent."""
    provider.script(only(Step(kind=Kind.HUGE_BODY, huge_bytes=2_000_000)))

    completion = ask(max_tokens=5)

    assert len(completion.choices[0].message.content) == 2_000_000
    assert completion.usage.completion_tokens == 5


def test_a_refusal_replaces_the_text(provider: Simulator, ask: Ask) -> None:
    """A refusal has no content, also if a schema was requested."""
    provider.script(only(Step(refusal="I cannot help with that.")))

    message = ask("parse", response_format=Invoice).choices[0].message

    assert (message.refusal, message.content) == ("I cannot help with that.", None)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Step(finish_reason="content_filter"), openai.ContentFilterFinishReasonError),
        (Step(text="x" * 100), openai.LengthFinishReasonError),
    ],
)
def test_an_unfinished_text_is_not_parsed(
    provider: Simulator, ask: Ask, step: Step, expected: type[Exception]
) -> None:
    """The client does not parse filtered and cut answers."""
    provider.script(only(step))

    with pytest.raises(expected):
        ask("parse", response_format=Invoice, max_tokens=5)


def test_a_stream_is_refused(provider: Simulator, ask: Ask) -> None:
    """Streams are not supported: the answer is an error."""
    with pytest.raises(openai.BadRequestError, match="streams are not supported"):
        ask(stream=True)

    assert provider.counts().by_fault == {"bad_request": 1}


def test_scripted_usage_reaches_the_client(provider: Simulator, ask: Ask) -> None:
    """Token details arrive in the fields that the client reads."""
    usage = ReportedUsage(prompt_tokens=9, completion_tokens=8, cached_tokens=7, reasoning_tokens=6)
    provider.script(only(Step(usage=usage, service_tier="flex")))

    completion = ask()

    reported = completion.usage
    assert (reported.prompt_tokens, reported.completion_tokens) == (9, 8)
    assert reported.prompt_tokens_details.cached_tokens == 7
    assert reported.completion_tokens_details.reasoning_tokens == 6
    assert completion.service_tier == "flex"


def test_a_latency_passes_before_the_answer(provider: Simulator, ask: Ask) -> None:
    """The answer comes after its latency, which the record includes."""
    provider.script(only(Step(latency_s=0.3)))

    ask()

    (record,) = provider.requests().records
    assert record.finished_s is not None
    assert record.finished_s - record.started_s >= 0.3
