"""A pipeline that uses callgate type-checks under mypy's strict mode: the package carries its types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

PROGRAM = '''
"""What a user writes."""
from __future__ import annotations

import asyncio

from celery import Celery  # type: ignore[import-untyped]
from pydantic import BaseModel

from callgate import BudgetRefused, CallFailed, Client, LLMRequest, Message, Priority

app = Celery("pipeline")


class Invoice(BaseModel):
    number: str


def request_of(text: str) -> LLMRequest:
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=(Message(role="user", content=text),),
        max_output_tokens=50,
        response_schema=Invoice,
    )


def once(client: Client) -> str:
    handle = client.submit(
        request_of("a"), link=app.signature("pipeline.done"), priority=Priority.INTERACTIVE
    )
    try:
        result = handle.get(timeout=30)
    except BudgetRefused as refused:
        return refused.refusal.org_id
    except CallFailed as failed:
        return failed.failure_code
    return result.text


async def many(client: Client) -> list[str]:
    first, *others = await client.asubmit_many([request_of("b"), request_of("c")])
    awaited = await first
    reveal_type(awaited)
    texts = [awaited.text]
    async for handle in client.aas_completed(others):
        texts.append((await handle.aget()).text)
    return texts


with Client.from_env() as client:
    reveal_type(client.submit(request_of("d")))
    print(once(client), asyncio.run(many(client)))
'''
WRONG = """
from callgate import Client, LLMRequest


async def wrong(client: Client, request: LLMRequest) -> int:
    return await client.submit(request)
"""


def check(folder: Path, program: str) -> str:
    """What mypy says about a program in a folder of its own."""
    (folder / "program.py").write_text(program)
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-color-output", "program.py"],
        cwd=folder, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    return ran.stdout + ran.stderr


def test_a_pipeline_is_checked_and_what_it_awaits_has_a_type(tmp_path: Path) -> None:
    said = check(tmp_path, PROGRAM)

    assert re.findall(r'Revealed type is "(.*)"', said) == [
        "callgate.domain.requests.LLMResult",
        "callgate.handle.Handle",
    ]
    assert said.endswith("Success: no issues found in 1 source file\n"), said
    wrong = check(tmp_path, WRONG)
    assert '(got "LLMResult", expected "int")' in wrong, wrong
