"""What tests share that run `python -m callgate`."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_TIMEOUT_S = 60.0
UP_TIMEOUT_S = 90.0
REQUEST = {
    "org_id": "acme",
    "call_type": "letters",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "max_output_tokens": 50,
    "messages": [{"role": "user", "content": "Hello"}],
}


def connects(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False
