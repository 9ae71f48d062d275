"""Replies that are expensive to read delay only their own provider's calls."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc

import pytest

from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.support.hostile_provider import LAG_MAX_S, MIB, TIMEOUT_S, Answer, Lag, ask, bystander
from tests.support.openai_attempts import ATTEMPT, a_request, attempt
from tests.support.provider_worlds import (
    SocketServer,
    adapter_for,
    chat,
    http,
    sends,
)

pytestmark = pytest.mark.usefixtures("no_proxies")


def many(body: bytes) -> bytes:
    """A reply with these choices and a plausible usage at its end."""
    usage = b'"usage": {"prompt_tokens": 9, "completion_tokens": 1}'
    return b'{"choices": ' + body + b", " + usage + b"}"


EXPENSIVE: dict[str, bytes] = {
    "lists": many(b"[" + b"[]," * (2 * MIB) + b"[]]"),
    "mappings": many(b"[" + b"{}," * (2 * MIB) + b"{}]"),
    "texts": many(b"[" + b'"",' * (2 * MIB) + b'""]'),
    "names": many(b"{" + b",".join(b'"%x":1' % n for n in range(MIB // 2)) + b"}"),
    "a nest": many(b"[" * MIB + b"]" * MIB),
    "quotes": many(b"[" + b'""' * (2 * MIB) + b"]"),
    "ends": b"]" * (7 * MIB),
    "choices": many(b"[" + b'{"message":{"content":"x"}},' * (MIB // 4) + b"{}]"),
    "UTF-16": b"\xff\xfe" + ("[" + '"\u2222",' * MIB + "0]").encode("utf-16-le"),
}


@pytest.mark.parametrize("what", EXPENSIVE)
def test_an_expensive_reply_delays_no_other_call(what: str) -> None:
    """Four at a time: the event loop runs, and another provider's calls are answered."""

    async def run() -> tuple[list[Answer], Lag]:
        async with (
            SocketServer(sends(http(EXPENSIVE[what]))) as server,
            adapter_for(server.base_url) as hostile,
            bystander() as lag,
        ):
            return await asyncio.gather(*(ask(hostile) for _ in range(4))), lag

    answers, lag = asyncio.run(run())

    assert lag.longest_s < LAG_MAX_S
    assert len(lag.answered) > 3
    for answer in answers:
        failure = answer.failure if isinstance(answer, ProviderReply) else answer
        assert failure is not None
        assert failure.code in ("reply_too_large", "invalid_response")


@pytest.mark.parametrize("what", ["lists", "a nest", "choices"])
def test_an_expensive_reply_is_billed_by_its_usage(what: str) -> None:
    """It is not retried."""
    answer = attempt(sends(http(EXPENSIVE[what]))).answer

    assert isinstance(answer, ProviderReply)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 1)
    assert answer.failure is not None
    assert answer.failure.billing is Billing.BY_USAGE
    assert not answer.failure.retryable


@pytest.mark.parametrize(
    "usage", [b"", b'"usage": 7', b'"usage": {"prompt_tokens": ', b'"usage":{"a":' * 9999]
)
def test_an_expensive_reply_without_usage_has_an_unknown_bill(usage: bytes) -> None:
    body = b'{"choices": [' + b"[]," * MIB + b"[]], " + usage + b"}"

    assert attempt(sends(http(body))).classification == ("reply_too_large", False, Billing.UNKNOWN)


def test_a_refused_reply_is_not_parsed() -> None:
    """Six megabytes of lists are two hundred as objects."""
    body = EXPENSIVE["lists"]
    tracemalloc.start()
    try:
        attempt(sends(http(body)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 * len(body)


def _wrapped(text: str) -> bytes:
    return json.dumps(chat(text)).encode()


WRAPPED: dict[str, bytes] = {
    "spaces": _wrapped("```" + " " * MIB + "x"),
    "ticks": _wrapped("`" * MIB),
    "a name": _wrapped("```" + "a" * MIB + " " * MIB + "x"),
    "thoughts": _wrapped("<think>" * (MIB // 8)),
    "ends of thoughts": _wrapped("</think>" * (MIB // 8)),
}


@pytest.mark.parametrize("what", WRAPPED)
def test_unwrapping_takes_linear_time(what: str) -> None:
    """A megabyte of spaces behind a fence once backtracked in a trillion ways."""

    async def run() -> tuple[Answer, Lag]:
        async with (
            SocketServer(sends(http(WRAPPED[what]))) as server,
            adapter_for(server.base_url, unwraps=["think", "fence"]) as hostile,
            bystander() as lag,
        ):
            request = a_request(response_schema={"type": "object"})
            answer = await hostile.complete(request, attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
            return answer, lag

    answer, lag = asyncio.run(run())

    assert isinstance(answer, ProviderReply)
    assert lag.longest_s < LAG_MAX_S


@pytest.mark.parametrize(
    "data",
    [
        http(b"a" * 500_000, status=400, headers={"content-type": "text/plain; charset=punycode"}),
        http(b"[" * MIB, status=400),
        http(b"[]," * MIB, status=500),
        http(
            gzip.compress(gzip.compress(b"") * 10**5),
            status=429,
            headers={"content-encoding": "gzip, gzip"},
        ),
        http(
            gzip.compress(gzip.compress(b"") * 300_000),
            headers={"content-encoding": "gzip, gzip"},
        ),
        http(b"", status=429, headers={"retry-after": "1" * 4_000, "date": "1 " * 2_000}),
    ],
    ids=["punycode", "a nest", "lists", "members of a refusal", "members", "a wait"],
)
def test_expensive_charsets_and_refusals_delay_no_other_call(data: bytes) -> None:
    """Charsets, error bodies, compressed nothing, headers."""

    async def run() -> tuple[Answer, Lag]:
        async with (
            SocketServer(sends(data, then_close=True)) as server,
            adapter_for(server.base_url) as hostile,
            bystander() as lag,
        ):
            return await ask(hostile), lag

    answer, lag = asyncio.run(run())

    assert isinstance(answer, Failure)
    assert lag.longest_s < LAG_MAX_S
