"""An organisation's own endpoint, over real HTTP: whose key goes where, and what one broken endpoint blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.providers import adapter_class
from callgate.adapters.providers.http.http_adapter import HTTPAdapter
from callgate.domain.budgets import Window
from callgate.domain.calls import CallState, CallView, WaitReason
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.support.provider_worlds import SocketServer, sends_json
from tests.support.service_world import ServiceWorld, a_request

PROTOCOLS = sorted(
    folder.name
    for folder in resources.files("callgate.adapters.providers").iterdir()
    if folder.is_dir() and folder.name not in ("http", "__pycache__")
)
REPLY = {
    "id": "chatcmpl-1",
    "model": "sim-1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}  # fmt: skip
REFUSED = {"error": {"message": "wrong key", "type": "invalid_request_error"}}


class Account:
    """A provider with three servers: its own one, and two that stand for organisations' own accounts."""

    def __init__(self, folder: Path, protocol: str = "openai") -> None:
        self.folder = folder
        self.protocol = protocol
        self.base = SocketServer(sends_json(REPLY))
        self.acme = SocketServer(sends_json(REFUSED, status=401))
        self.globex = SocketServer(sends_json(REPLY))
        self._servers = AsyncExitStack()

    async def __aenter__(self) -> Account:
        for server in (self.base, self.acme, self.globex):
            await self._servers.enter_async_context(server)
        self.entry = ProviderEntry(
            protocol=self.protocol,
            base_url=self.base.base_url,
            org_endpoints=(f"{self.acme.base_url}", f"{self.globex.base_url}/*"),
        )
        credentials = FileCredentials({"sim": SecretStr("common-key")}, self.folder)
        self.adapter = adapter_class(self.protocol)("sim", self.entry, credentials)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.adapter.aclose()
        await self._servers.aclose()

    def write(self, **files: str) -> None:
        """Write files of the provider into the secrets folder; `__` stands for a dot."""
        for name, text in files.items():
            (self.folder / f"sim.{name.replace('__', '.')}").write_text(text)

    async def ask(self, org_id: str) -> ProviderReply | Failure:
        """Send one request of an organisation."""
        request = a_request(org_id=org_id, max_output_tokens=5)
        return await self.adapter.complete(request, attempt_id=uuid4(), timeout_s=20)


def keys_at(server: SocketServer) -> list[str]:
    """Whose keys a server has received."""
    known = ("common-key", "acme-key", "globex-key", "globex-new")
    return [key for r in server.received for key in known if key in str(sorted(r.headers.items()))]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_endpoint_gets_its_own_key_only(tmp_path: Path, protocol: str) -> None:
    async def run() -> None:
        async with Account(tmp_path, protocol) as account:
            account.write(acme="acme-key", acme__url=account.acme.base_url)
            account.write(globex="globex-key", globex__url=account.globex.base_url + "/deep/")
            for org_id in ("acme", "globex", "third", "acme"):
                await account.ask(org_id)

            assert keys_at(account.acme) == ["acme-key", "acme-key"]
            assert keys_at(account.globex) == ["globex-key"]
            assert keys_at(account.base) == ["common-key"]
            assert isinstance(account.adapter, HTTPAdapter)
            path = account.adapter.path
            assert account.globex.received[0].head.startswith(f"POST /v1/deep{path} ")
            assert account.acme.received[0].head.startswith(f"POST /v1{path} ")
            assert account.acme.received[0].headers["host"] == f"127.0.0.1:{account.acme.port}"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"acme__url": "{acme}"}, "missing_credentials"),
        ({"acme": " ", "acme__url": "{acme}"}, "missing_credentials"),
        ({"acme": "acme-key", "acme__url": "http://127.0.0.1:1/v1"}, "endpoint_refused"),
        ({"acme": "acme-key", "acme__url": "{acme}/v2"}, "endpoint_refused"),
        ({"acme": "acme-key", "acme__url": "{acme}?key=secret-word"}, "endpoint_refused"),
        ({"acme": "acme-key", "acme__url": "two words"}, "endpoint_refused"),
        ({"acme__url": "http://user:secret-word@127.0.0.1:1/v1"}, "endpoint_refused"),
    ],
)
def test_nothing_is_sent_to_an_endpoint_that_is_not_allowed_or_has_no_key(
    tmp_path: Path, files: Mapping[str, str], code: str
) -> None:
    """Not even to the provider's own endpoint: the organisation's key may be no key of it. The error quotes nothing."""

    async def run() -> None:
        async with Account(tmp_path) as account:
            account.write(**{n: t.format(acme=account.acme.base_url) for n, t in files.items()})

            answer = await account.ask("acme")

            assert isinstance(answer, Failure)
            assert (answer.code, answer.billing) == (code, Billing.UNBILLED)
            assert not answer.retryable
            assert "secret-word" not in str(answer)
            assert "127.0.0.1" not in str(answer)
            assert account.adapter.credential("acme") == "acme"
            assert account.acme.connections == account.base.connections == 0

    asyncio.run(run())


def test_a_provider_that_allows_none_sends_nothing(tmp_path: Path) -> None:
    """The file alone does not allow it. A server without keys gets no request either."""

    async def run() -> None:
        async with Account(tmp_path) as account:
            account.write(acme="acme-key", acme__url=account.acme.base_url)
            for fields in ({"org_endpoints": ()}, {"needs_key": False, "org_endpoints": ()}):
                entry = account.entry.model_copy(update=fields)
                credentials = FileCredentials({}, tmp_path)
                adapter = adapter_class("openai")("sim", entry, credentials)
                request = a_request(max_output_tokens=5)
                answer = await adapter.complete(request, attempt_id=uuid4(), timeout_s=20)
                await adapter.aclose()

                assert isinstance(answer, Failure)
                assert answer.code == "endpoint_refused"
            assert account.acme.connections == account.base.connections == 0

    asyncio.run(run())


def test_a_rotated_key_and_endpoint_are_used_by_the_next_request(tmp_path: Path) -> None:
    async def run() -> None:
        async with Account(tmp_path) as account:
            account.write(globex="globex-key", globex__url=account.acme.base_url)
            await account.ask("globex")
            account.write(globex="globex-new", globex__url=account.globex.base_url + "/")
            await account.ask("globex")
            (tmp_path / "sim.globex.url").unlink()
            await account.ask("globex")

            assert keys_at(account.acme) == ["globex-key"]
            assert keys_at(account.globex) == keys_at(account.base) == ["globex-new"]

    asyncio.run(run())


def test_a_blocked_credential_blocks_no_other(tmp_path: Path) -> None:
    """acme's account refuses its key. globex, and all who use the provider's key, go on."""

    async def run() -> None:
        async with Account(tmp_path) as account:
            account.write(acme="acme-key", acme__url=account.acme.base_url)
            account.write(globex="globex-key", globex__url=account.globex.base_url + "/")
            world = ServiceWorld(entry=account.entry)
            world.providers["sim"] = account.adapter
            for org_id in ("globex", "third"):
                world.ledger.set_budget(org_id, "org", Window.DAY, 10**9)

            async def call(org_id: str, text: str) -> CallView:
                return await world.run(world.submit(text, org_id=org_id).key)

            for n in range(10):
                refused = await call("acme", f"refused {n}")
            shut_out = len(account.acme.received)
            waiting = await call("acme", "one more")
            others = [await call(org_id, "hello") for org_id in ("globex", "third")]

            assert refused.state is not CallState.SUCCEEDED
            assert (waiting.state, waiting.wait_reason) == (
                CallState.WAITING,
                WaitReason.PROVIDER,
            )
            assert len(account.acme.received) == shut_out < 10
            assert [view.state for view in others] == [CallState.SUCCEEDED] * 2
            assert [_credential(view) for view in others] == ["globex", ""]
            open_ones = [line.credential for line in world.ledger.breakers() if line.is_open]
            assert open_ones == ["acme"]

    asyncio.run(run())


def _credential(view: Any) -> str:
    assert view.last is not None
    return str(view.last.credential)
