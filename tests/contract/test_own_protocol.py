"""
A protocol without an SDK, as docs/howto/add-a-provider.md builds it: `tests/support/parrot`, over real sockets.

The suites of all providers and of reply cases test it too. Here is what only a protocol of one's own has.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import callgate
from callgate.domain.messages import Message, ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Usage
from callgate.services.review import flaw_of
from tests.contract.provider_steps import a_request
from tests.support.own_protocol import FOLDER, PRESET
from tests.support.provider_worlds import (
    KEY,
    Exchange,
    Received,
    SocketServer,
    adapter_for,
    closes,
    hangs,
    http,
    resets,
    sends,
    sends_json,
)

CODE = """
import asyncio, sys, uuid
from pathlib import Path
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.providers import adapter_class
from callgate.domain.access import Access
from callgate.domain.requests import LLMRequest, Message

class Keys:
    def access(self, provider, org_id):
        return Access("k")

async def main():
    entry = load_catalogue(Path(sys.argv[1])).providers["parrot"]
    adapter = adapter_class(entry.protocol)("parrot", entry, Keys())
    request = LLMRequest(org_id="a", call_type="x", provider="parrot", model="grey-1", max_output_tokens=9,
                         messages=(Message(role="user", content="ping"),))
    print((await adapter.complete(request, attempt_id=uuid.uuid4(), timeout_s=20)).texts, *entry.cannot)
    await adapter.aclose()

asyncio.run(main())
"""
SAID = {"say": "pong", "why": "done", "fed": {"in": 9, "out": 1}}


def ask(
    exchange: Exchange, timeout_s: float = 20.0, **fields: Any
) -> tuple[ProviderReply | Failure, list[Received]]:
    """One attempt against a server."""

    async def asked() -> tuple[ProviderReply | Failure, list[Received]]:
        async with (
            SocketServer(exchange) as server,
            adapter_for(server.base_url, **PRESET) as adapter,
        ):
            request = a_request(**fields)
            answer = await adapter.complete(request, attempt_id=uuid4(), timeout_s=timeout_s)
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
        (429, {"squawk": {"kind": "too fast"}}, "rate_limited", Billing.UNBILLED),
        (401, {"squawk": "who are you"}, "authentication_failed", Billing.UNBILLED),
        (429, {"error": {"code": "insufficient_quota"}}, "insufficient_quota", Billing.UNBILLED),
        (408, {"squawk": {"kind": "asleep"}}, "request_timeout", Billing.UNKNOWN),
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
        (sends_json({"model": "grey-1"}), "invalid_response"),
    ],
    ids=["silence", "closed", "reset", "cut", "a page", "nothing said"],
)
def test_what_was_sent_may_be_billed(exchange: Exchange, code: str) -> None:
    answer, _ = ask(exchange, timeout_s=1.0)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == (code, Billing.UNKNOWN)


@pytest.mark.parametrize("status", [429, 200])
def test_its_own_header_says_how_long_to_wait(status: int) -> None:
    """In a refusal and in an error in a 200. Nothing of the error's text is kept."""
    body = {"squawk": {"kind": "too fast", "text": f"slower, {KEY}"}}

    answer, _ = ask(sends_json(body, status=status, headers={"X-Back-In": "7"}))

    assert isinstance(answer, Failure)
    assert (answer.code, answer.status, answer.retry_after_s) == ("rate_limited", 429, 7.0)
    assert answer.provider_code == "rate_limit_exceeded"
    assert KEY not in answer.message


def test_what_cannot_be_written_is_not_sent() -> None:
    """Its reason is told."""
    answer, received = ask(sends_json(SAID), messages=[turn_with("1e999")])

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == ("inexpressible", Billing.UNBILLED)
    assert answer.message.endswith("a number is not finite")
    assert received == []


def turn_with(number: str) -> Message:
    call = ToolCall(id="c1", name="add", arguments=f'{{"a":{number}}}')
    return Message(role="assistant", tool_calls=(call,))


def test_one_folder_and_one_catalogue_entry_are_enough(tmp_path: Path) -> None:
    """In a copy of callgate: it is found by the folder's name, with its presets, and answers."""
    copy = tmp_path / "callgate"
    shutil.copytree(Path(callgate.__file__).parent, copy, ignore=shutil.ignore_patterns("*.pyc"))
    folder = copy / "adapters" / "providers" / "parrot"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.pyc"))
    for file in folder.glob("*.py"):
        text = file.read_text("utf-8")
        own = text.replace("tests.support.parrot", "callgate.adapters.providers.parrot")
        file.write_text(own, "utf-8")
    catalogue = tmp_path / "catalogue.toml"

    async def run() -> tuple[bytes, bytes]:
        async with SocketServer(sends_json(SAID)) as server:
            catalogue.write_text(
                f'[providers.parrot]\nprotocol = "parrot"\nbase_url = "{server.base_url}"\n'
            )
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CODE, str(catalogue)),
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            return await asyncio.wait_for(process.communicate(), 60)

    out, errors = asyncio.run(run())

    assert errors == b""
    assert out.decode().split() == ["('pong',)", *PRESET["cannot"]]


def test_what_was_not_sent_is_unbilled() -> None:
    async def asked() -> ProviderReply | Failure:
        async with adapter_for("http://127.0.0.1:9", **PRESET) as adapter:
            return await adapter.complete(a_request(), attempt_id=uuid4(), timeout_s=5.0)

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
        async with (
            SocketServer(sends_json({"data": []}, status=status)) as server,
            adapter_for(server.base_url, **PRESET) as adapter,
        ):
            return await adapter.check_key("/models", timeout_s=5.0), server.received

    failure, (received,) = asyncio.run(checked())

    assert (failure.code if failure else None) == code
    assert received.head == "GET /v1/models HTTP/1.1"
