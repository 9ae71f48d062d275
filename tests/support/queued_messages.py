"""Messages as kombu keeps them in a queue of Redis: good ones, and ones with any body or header."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4

HEADERS = {"lang": "py", "task": "note", "id": "unprocessable-id", "timelimit": [None, None]}
FOLLOW_UPS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def envelope(
    body: bytes = b"",
    headers: object = None,
    content_type: str | None = "application/json",
    queue: str = "test",
    **more: Any,
) -> bytes:
    """Return a message in the form in which kombu keeps it in a queue of Redis."""
    properties = {
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": queue},
        "delivery_mode": 2,
        "delivery_tag": str(uuid4()),
        "priority": 0,
    }
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": HEADERS if headers is None else headers,
            "properties": properties,
            **more,
        }
    ).encode()


def with_headers(**changes: object) -> bytes:
    """Return a good message with changed headers."""
    return envelope(json.dumps([["a"], {}, FOLLOW_UPS]).encode(), {**HEADERS, **changes})


def with_body(body: object) -> bytes:
    """Return a message whose headers are good, and whose body is JSON."""
    return envelope(json.dumps(body).encode())
