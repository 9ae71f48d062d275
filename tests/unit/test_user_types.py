"""Code of a user is checked by mypy in strict mode, without the plugin that our own configuration has."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

from tests.support.page_blocks import blocks_of

README = Path(__file__).parents[2] / "README.md"
CONFIG = """
[mypy]
strict = true
# Celery ships no types; its users have these lines already.
allow_untyped_decorators = true
[mypy-celery.*]
ignore_missing_imports = true
"""
PROGRAM = """
from typing import assert_type

from pydantic import BaseModel

from callgate import Client, Handle, LLMRequest, LLMResult, Priority
from callgate.testing import MemoryClient, Refusal


class Invoice(BaseModel):
    total: float


def request(text: str) -> LLMRequest:
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": text}],
        response_schema=Invoice,
    )


async def answer(client: Client) -> None:
    handle = await client.asubmit(request("text"), priority=Priority.BULK)
    assert_type(handle, Handle)
    assert_type(await handle, LLMResult)
    assert_type(handle.get(timeout=5), LLMResult)
    async for one in client.aas_completed(client.submit_many([request("text")])):
        assert_type(one, Handle)


def test_it(callgate_client: MemoryClient) -> None:
    callgate_client.script.reply(Refusal(429), "text", Invoice(total=1), match="text")
    with Client.from_env() as client:
        assert_type(client, Client)
"""
WRONG = """
from callgate import Handle


async def answer(handle: Handle) -> int:
    return await handle
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says about three files."""
    folder = tmp_path_factory.mktemp("user")
    (block,) = [b for b in blocks_of(README) if b.language == "python"]
    files = {"mypy.ini": CONFIG, "invoices.py": block.text, "right.py": PROGRAM, "wrong.py": WRONG}
    for name, text in files.items():
        (folder / name).write_text(text)
    options = ["--config-file", str(folder / "mypy.ini"), "--cache-dir", str(folder / "cache")]
    said, broken, _ = api.run(
        [*options, *(str(folder / name) for name in files if name.endswith(".py"))]
    )
    assert not broken, broken
    return said


@pytest.mark.parametrize("file", ["invoices.py", "right.py"])
def test_no_error_is_found(checked: str, file: str) -> None:
    assert file not in checked, checked


def test_a_handle_that_is_awaited_has_a_type(checked: str) -> None:
    """Of an untyped value nothing would be said."""
    (line,) = [line for line in checked.splitlines() if "error:" in line]

    assert "wrong.py" in line
    assert "LLMResult" in line
