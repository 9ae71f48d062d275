"""Every answer and fault of the simulator, as a real AsyncOpenAI client meets it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from pydantic import BaseModel, ValidationError

from devkit.simulator.simulator import (
    ATTEMPT_HEADER,
    ErrorBody,
    Kind,
    ReportedUsage,
    Rule,
    Simulator,
    Step,
)

ANSWER_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 0.6

Ask = Callable[..., Any]


class Invoice(BaseModel):
    number: str
    total: int


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    """One running simulator for all tests of this module."""
    with Simulator() as running:
        yield running


@pytest.fixture
def provider(process: Simulator) -> Simulator:
    """The simulator as freshly started: no rules, no requests."""
    process.reset()
    return process


@pytest.fixture(params=["httpx", "aiohttp"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each of the two transports that openai's client has."""
    return str(request.param)


@pytest.fixture
def ask(provider: Simulator, transport: str) -> Ask:
    """Make one request with a real client and return what it returns or raises."""

    def ask_once(method: str = "create", **fields: Any) -> Any:
        return asyncio.run(_ask(provider.base_url, transport, method, fields))

    return ask_once


async def _ask(base_url: str, transport: str, method: str, fields: dict[str, Any]) -> Any:
    transport_class = {
        "httpx": openai.DefaultAsyncHttpxClient,
        "aiohttp": openai.DefaultAioHttpClient,
    }[transport]
    fields = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "extra_headers": {ATTEMPT_HEADER: "attempt-1"},
        "timeout": ANSWER_TIMEOUT_S,
        **fields,
    }
    # An empty context: nothing here speaks TLS, and loading certificates takes a tenth of a second.
    no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    http = transport_class(follow_redirects=fields.pop("follow", False), verify=no_certificates)
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key="any", max_retries=0, http_client=http
    ) as client:
        return await getattr(client.chat.completions, method)(**fields)


def only(step: Step) -> list[Rule | dict[str, Any]]:
    """Return a script that answers everything with one step."""
    return [Rule(reply=[step])]


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
    """A rate limit says how long to wait, in whole seconds."""
    provider.script(only(Step(kind=Kind.STATUS, status=429, retry_after_s=7)))

    with pytest.raises(openai.RateLimitError) as raised:
        ask()

    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.code == "rate_limit_exceeded"


def test_retry_after_comes_as_a_date(provider: Simulator, ask: Ask) -> None:
    """A rate limit may name a moment instead, in the form of an HTTP date."""
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
    """A 200 whose body does not arrive is no answer, though it may have been paid for."""
    provider.script(only(Step(kind=kind)))

    with pytest.raises(openai.APIConnectionError) as raised:
        ask()

    assert isinstance(raised.value.__cause__, httpx2.ReadError | httpx2.RemoteProtocolError)
    assert not isinstance(raised.value, openai.APITimeoutError)
    assert provider.requests().records[0].status == 200


def test_garbage_escapes_the_client_as_a_decoding_error(provider: Simulator, ask: Ask) -> None:
    """A 200 that is no JSON raises no error of openai's at all, but json's."""
    provider.script(only(Step(kind=Kind.NOT_JSON)))

    with pytest.raises(json.JSONDecodeError):
        ask()


def test_garbage_under_another_content_type_is_returned_as_text(
    provider: Simulator, ask: Ask
) -> None:
    """A proxy's HTML page comes out of the client as a str in place of a completion."""
    provider.script(only(Step(kind=Kind.NOT_JSON, headers={"content-type": "text/html"})))

    assert isinstance(ask(), str)


def test_a_slow_drip_passes_a_read_timeout_that_it_exceeds(provider: Simulator, ask: Ask) -> None:
    """Timeouts of single reads do not bound a request; only a deadline over all of it does."""
    provider.script(only(Step(kind=Kind.SLOW_DRIP, drip_s=2 * READ_TIMEOUT_S)))
    started_s = time.monotonic()

    completion = ask(timeout=READ_TIMEOUT_S)

    assert time.monotonic() - started_s >= 2 * READ_TIMEOUT_S
    assert completion.choices[0].message.content == "ok"


def test_empty_choices_arrive_empty(provider: Simulator, ask: Ask) -> None:
    """An answer may be paid for and hold no choice."""
    provider.script(only(Step(kind=Kind.EMPTY_CHOICES)))

    completion = ask()

    assert completion.choices == []
    assert completion.usage is not None


def test_a_missing_usage_arrives_as_none(provider: Simulator, ask: Ask) -> None:
    """An answer may not say what it cost."""
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
    """Whoever follows a redirect asks twice under one attempt id, and the count says so."""
    provider.script([Rule(reply=[Step(kind=Kind.REDIRECT), Step()])])

    completion = ask(follow=True)

    assert completion.choices[0].message.content == "ok"
    assert provider.counts().repeated == {"attempt-1": 2}


def test_a_huge_body_arrives_whole(provider: Simulator, ask: Ask) -> None:
    """The size of an answer is the provider's choice, whatever limit was sent."""
    provider.script(only(Step(kind=Kind.HUGE_BODY, huge_bytes=2_000_000)))

    completion = ask(max_tokens=5)

    assert len(completion.choices[0].message.content) == 2_000_000
    assert completion.usage.completion_tokens == 5


def test_a_refusal_replaces_the_text(provider: Simulator, ask: Ask) -> None:
    """A model that refuses has no content, also where a schema was asked for."""
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
    """Filtered and cut answers carry a finish reason that the client refuses to parse."""
    provider.script(only(step))

    with pytest.raises(expected):
        ask("parse", response_format=Invoice, max_tokens=5)


def test_a_stream_is_refused(provider: Simulator, ask: Ask) -> None:
    """Streams are not supported, and say so instead of hanging."""
    with pytest.raises(openai.BadRequestError, match="streams are not supported"):
        ask(stream=True)

    assert provider.counts().by_fault == {"bad_request": 1}


def test_scripted_usage_reaches_the_client(provider: Simulator, ask: Ask) -> None:
    """Token details arrive in the fields where the client looks for them."""
    usage = ReportedUsage(prompt_tokens=9, completion_tokens=8, cached_tokens=7, reasoning_tokens=6)
    provider.script(only(Step(usage=usage, service_tier="flex")))

    completion = ask()

    reported = completion.usage
    assert (reported.prompt_tokens, reported.completion_tokens) == (9, 8)
    assert reported.prompt_tokens_details.cached_tokens == 7
    assert reported.completion_tokens_details.reasoning_tokens == 6
    assert completion.service_tier == "flex"


def test_a_latency_passes_before_the_answer(provider: Simulator, ask: Ask) -> None:
    """The answer comes after its latency, and the record spans it."""
    provider.script(only(Step(latency_s=0.3)))

    ask()

    (record,) = provider.requests().records
    assert record.finished_s is not None
    assert record.finished_s - record.started_s >= 0.3


def test_rules_are_chosen_by_model_and_text(provider: Simulator, ask: Ask) -> None:
    """Conditions are met by what the client really sent."""
    provider.script(
        [
            {"match": {"model": "m", "text": "hello"}, "reply": [{"text": "both"}]},
            {"match": {"model": "other"}, "reply": [{"text": "model"}]},
        ]
    )

    assert ask().choices[0].message.content == "both"
    assert ask(model="other").choices[0].message.content == "model"


def test_the_catalogue_and_unknown_paths_answer_like_openai(provider: Simulator) -> None:
    """A client may list models, and an unknown path is a 404 in OpenAI's form."""

    async def look() -> list[str]:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client:
            models = await client.models.list()
            with pytest.raises(openai.NotFoundError, match="Invalid URL"):
                await client.files.list()
            return [model.id for model in models.data]

    assert asyncio.run(look()) == ["simulator"]
    assert provider.counts().total == 0


def test_a_malformed_script_leaves_the_old_one_in_force(provider: Simulator, ask: Ask) -> None:
    """A script is taken as a whole or not at all."""
    provider.script(only(Step(text="old")))

    with pytest.raises(ValidationError):
        provider.script([{"reply": [{"text": "new"}]}, {"reply": []}])

    assert ask().choices[0].message.content == "old"


def test_a_reset_forgets_requests_and_rules(provider: Simulator, ask: Ask) -> None:
    """One simulator serves many tests, each as if it were freshly started."""
    provider.script(only(Step(text="scripted")))
    ask()

    provider.reset()

    assert provider.requests().records == ()
    assert provider.counts().total == 0
    assert ask().choices[0].message.content == "ok"


def test_records_keep_the_order_of_arrival(provider: Simulator, ask: Ask) -> None:
    """Every record names its attempt and model."""
    for number in range(3):
        ask(model=f"m{number}", extra_headers={ATTEMPT_HEADER: f"attempt-{number}"})

    records = provider.requests().records

    assert [(record.attempt_id, record.model) for record in records] == [
        ("attempt-0", "m0"),
        ("attempt-1", "m1"),
        ("attempt-2", "m2"),
    ]
    assert provider.counts().attempt_ids == 3
