"""The first request of a process: its imports count against its deadline."""

from __future__ import annotations

import subprocess
import sys

import pytest

from devkit.simulator.simulator import Simulator

FIRST_REQUEST = """
import asyncio, sys
from uuid import uuid4
import worker.isolated
from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.providers import adapter_class
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.requests import LLMRequest, Message

url, protocol = sys.argv[1:]
create = adapter_class(protocol)

async def main():
    imported = set(sys.modules)
    entry = ProviderEntry(base_url=url, needs_key=False, protocol=protocol)
    adapter = create("sim", entry, FileCredentials({}, None))
    request = LLMRequest(
        org_id="acme", call_type="answer", provider="sim", model="sim-1", max_output_tokens=16,
        messages=[Message(role="user", content="hi")],
    )
    reply = await adapter.complete(request, attempt_id=uuid4(), timeout_s=10)
    await adapter.aclose()
    print(type(reply).__name__, *sorted(set(sys.modules) - imported))

asyncio.run(main())
"""


@pytest.mark.parametrize("protocol", ["openai", "openai_responses", "anthropic"])
def test_the_first_request_of_a_worker_imports_nothing(protocol: str) -> None:
    """On two busy cores, imports took up to four seconds, and the deadline is three."""
    with Simulator() as provider:
        url = provider.base_url.removesuffix("/v1" if protocol == "anthropic" else "")
        argv = [sys.executable, "-c", FIRST_REQUEST, url, protocol]
        done = subprocess.run(  # noqa: S603 - our own program
            argv, capture_output=True, text=True, timeout=60, check=True
        )

    assert done.stdout.split() == ["ProviderReply"]
