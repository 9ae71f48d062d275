"""A protocol without an SDK, as docs/howto/add-a-provider.md builds it: `tests/support/parrot`, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Usage
from callgate.services.review import flaw_of
from tests.support.openai_attempts import a_request
from tests.support.parrot.parrot_adapter import ParrotAdapter
from tests.support.provider_worlds import (
    KEY,
    Exchange,
    Keys,
    Received,
    SocketServer,
    closes,
    hangs,
    http,
    resets,
    sends,
    sends_json,
)

SAID = {"say": "pong", "why": "done", "usage": {"input_tokens": 9, "output_tokens": 1}}


def ask(
    exchange: Exchange, timeout_s: float = 20.0
) -> tuple[ProviderReply | Failure, list[Received]]:
    """One attempt against a server."""

    async def asked() -> tuple[ProviderReply | Failure, list[Received]]:
        async with SocketServer(exchange) as server:
            adapter = ParrotAdapter("parrot", ProviderEntry(base_url=server.base_url), Keys())
            try:
                answer = await adapter.complete(
                    a_request("ping"), attempt_id=uuid4(), timeout_s=timeout_s
                )
            finally:
                await adapter.aclose()
            return answer, server.received

    return asyncio.run(asked())


def test_a_parrot_answers() -> None:
    answer, (received,) = ask(sends_json(SAID))

    assert isinstance(answer, ProviderReply)
    assert (answer.texts, answer.usage) == (("pong",), Usage(input_tokens=9, output_tokens=1))
    assert flaw_of(answer, ()) is None
    assert received.head == "POST /v1/speak HTTP/1.1"
    assert received.headers["x-cracker"] == KEY
    assert received.fields["words_max"] == 50
    assert "authorization" not in received.headers


@pytest.mark.parametrize(
    ("status", "error", "code", "billing"),
    [
        (429, {"error": {"code": "rate_limit_exceeded"}}, "rate_limited", Billing.UNBILLED),
        (401, {"error": "who are you"}, "authentication_failed", Billing.UNBILLED),
        (503, {}, "server_error", Billing.UNKNOWN),
        (302, {}, "redirected", Billing.UNBILLED),
    ],
)
def test_a_refusal_is_classified(status: int, error: Any, code: str, billing: Billing) -> None:
    answer, received = ask(sends_json(error, status=status, headers={"Location": "/v1/speak"}))

    assert isinstance(answer, Failure)
    assert (answer.status, answer.code, answer.billing) == (status, code, billing)
    assert len(received) == 1


@pytest.mark.parametrize(
    ("exchange", "code"),
    [
        (hangs, "timeout"),
        (closes, "connection_lost"),
        (resets, "connection_lost"),
        (sends(http(b"{", length=9), then_close=True), "invalid_response"),
        (sends(http(b"<html>")), "invalid_response"),
        (sends_json({"why": "done"}), "invalid_response"),
    ],
    ids=["silence", "closed", "reset", "cut", "a page", "nothing said"],
)
def test_what_was_sent_may_be_billed(exchange: Exchange, code: str) -> None:
    answer, _ = ask(exchange, timeout_s=1.0)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == (code, Billing.UNKNOWN)


def test_what_was_not_sent_is_unbilled() -> None:
    async def asked() -> ProviderReply | Failure:
        adapter = ParrotAdapter("parrot", ProviderEntry(base_url="http://127.0.0.1:9"), Keys())
        try:
            return await adapter.complete(a_request(), attempt_id=uuid4(), timeout_s=5.0)
        finally:
            await adapter.aclose()

    answer = asyncio.run(asked())

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == ("connection_failed", Billing.UNBILLED)


@pytest.mark.parametrize(("why", "code"), [("out of words", None), ("cat", "unknown_ending")])
def test_an_unknown_ending_is_no_success(why: str, code: str | None) -> None:
    answer, _ = ask(sends_json({**SAID, "why": why}))

    assert isinstance(answer, ProviderReply)
    flaw = flaw_of(answer, ())
    assert (flaw.code if flaw else None) == code


@pytest.mark.parametrize(("status", "code"), [(200, None), (401, "authentication_failed")])
def test_a_key_can_be_checked_without_a_paid_request(status: int, code: str | None) -> None:
    async def checked() -> tuple[Failure | None, list[Received]]:
        async with SocketServer(sends_json({"data": []}, status=status)) as server:
            adapter = ParrotAdapter("parrot", ProviderEntry(base_url=server.base_url), Keys())
            try:
                return await adapter.check_key("/models", timeout_s=5.0), server.received
            finally:
                await adapter.aclose()

    failure, (received,) = asyncio.run(checked())

    assert (failure.code if failure else None) == code
    assert received.head == "GET /v1/models HTTP/1.1"
