"""Replies that are expensive to read delay only their own provider's calls."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc

import pytest

from callgate.domain.ports import ProviderReply
from callgate.domain.retry import Billing, Failure
from tests.contract.openai_attempts import ATTEMPT, a_request, attempt, forget_proxies
from tests.contract.provider_worlds import (
    SocketServer,
    adapter_for,
    chat,
    http,
    sends,
)
from tests.support.hostile_provider import LAG_MAX_S, MIB, PATIENCE_S, Answer, Lag, ask, bystander


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


def many(body: bytes) -> bytes:
    """A reply whose last member is a usage that can be true."""
    usage = b'"usage": {"prompt_tokens": 9, "completion_tokens": 1}'
    return b'{"choices": ' + body + b", " + usage + b"}"


DEAR: dict[str, bytes] = {
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


@pytest.mark.parametrize("what", DEAR)
def test_a_reply_that_is_dear_to_read_stops_nobody_else(what: str) -> None:
    """Four at a time: the loop goes on, another provider's calls are answered, and no gigabyte is needed."""

    async def run() -> tuple[list[Answer], Lag]:
        async with (
            SocketServer(sends(http(DEAR[what]))) as server,
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
def test_a_reply_that_is_dear_to_read_is_paid_by_its_usage(what: str) -> None:
    """It was made, and says what it cost; it is not asked for again."""
    answer = attempt(sends(http(DEAR[what]))).answer

    assert isinstance(answer, ProviderReply)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 1)
    assert answer.failure is not None
    assert answer.failure.billing is Billing.BY_USAGE
    assert not answer.failure.retryable


@pytest.mark.parametrize(
    "usage", [b"", b'"usage": 7', b'"usage": {"prompt_tokens": ', b'"usage":{"a":' * 9999]
)
def test_a_reply_that_is_dear_to_read_and_names_no_usage_costs_its_hold(usage: bytes) -> None:
    """Nobody knows what it cost."""
    body = b'{"choices": [' + b"[]," * MIB + b"[]], " + usage + b"}"

    assert attempt(sends(http(body))).verdict == ("reply_too_large", False, Billing.UNKNOWN)


def test_reading_does_not_build_what_it_refuses() -> None:
    """Six megabytes of lists are two hundred as objects."""
    body = DEAR["lists"]
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
def test_an_answer_is_unwrapped_in_no_time(what: str) -> None:
    """A megabyte of spaces behind a fence was tried in a trillion ways."""

    async def run() -> tuple[Answer, Lag]:
        async with (
            SocketServer(sends(http(WRAPPED[what]))) as server,
            adapter_for(server.base_url, unwraps=["think", "fence"]) as hostile,
            bystander() as lag,
        ):
            request = a_request(response_schema={"type": "object"})
            answer = await hostile.complete(request, attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
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
def test_other_bytes_that_are_dear_to_read_stop_nobody_else(data: bytes) -> None:
    """Charsets, words of refusals, compressed nothing, headers."""

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
