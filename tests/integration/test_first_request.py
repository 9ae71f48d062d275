"""The first request of a process: its imports count against its deadline."""

from __future__ import annotations

import subprocess
import sys

from devkit.simulator.simulator import Simulator

FIRST_REQUEST = """
import asyncio, sys
from uuid import uuid4
import worker.isolated
from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.providers.openai.openai_adapter import OpenAIAdapter
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.requests import LLMRequest, Message

async def main():
    imported = set(sys.modules)
    entry = ProviderEntry(base_url=sys.argv[1], needs_key=False)
    adapter = OpenAIAdapter("sim", entry, FileCredentials({}, None))
    request = LLMRequest(
        org_id="acme", call_type="answer", provider="sim", model="sim-1", max_output_tokens=10,
        messages=[Message(role="user", content="hi")],
    )
    reply = await adapter.complete(request, attempt_id=uuid4(), timeout_s=10)
    await adapter.aclose()
    print(type(reply).__name__, *sorted(set(sys.modules) - imported))

asyncio.run(main())
"""


def test_the_first_request_of_a_worker_imports_nothing() -> None:
    """On two busy cores, imports took up to four seconds, and the deadline is three."""
    with Simulator() as provider:
        argv = [sys.executable, "-c", FIRST_REQUEST, provider.base_url]
        done = subprocess.run(  # noqa: S603 - our own program
            argv, capture_output=True, text=True, timeout=60, check=True
        )

    assert done.stdout.split() == ["ProviderReply"]
