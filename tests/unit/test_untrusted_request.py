"""Of a message's headers a worker passes on one, the context of a trace, if it is well formed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from celery import Celery

from worker.celery_ext.request import TaskIdentity, UntrustedRequest

CONTEXT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
CALL_ID = str(UUID(int=7))


class AnyCall:
    """A task that identifies every message as the same call."""

    name = "callgate.call"

    def identify(self, args: Any, kwargs: Any) -> TaskIdentity:
        return TaskIdentity(f"{CALL_ID}.1", (CALL_ID, 1))


def received(headers: object) -> dict[str, Any]:
    """The headers that a task sees of a message with these."""
    app = Celery(set_as_current=False)
    message = SimpleNamespace(
        payload=([CALL_ID, 1], {}, {}),
        body=b"",
        headers=headers,
        properties={},
        delivery_info={},
        delivery_tag="1",
        content_type="application/json",
        content_encoding="utf-8",
    )
    request = UntrustedRequest(message, task=AnyCall(), app=app, hostname="h")
    return dict(request.request_dict)


def test_a_well_formed_context_is_passed_on() -> None:
    assert received({"traceparent": CONTEXT})["traceparent"] == CONTEXT


@pytest.mark.parametrize(
    "value", ["", "x" * 10_000, CONTEXT + "-00", CONTEXT.upper(), ["a"], {"a": 1}, 7, None, "\x00"]
)
def test_anything_else_is_dropped(value: object) -> None:
    assert "traceparent" not in received({"traceparent": value})


def test_no_other_header_is_passed_on() -> None:
    forged = {"id": "x", "tracestate": "x", "baggage": "x", "timelimit": [1, 1], "expires": "x"}
    seen = received({**forged, "traceparent": CONTEXT})
    assert seen["id"] == f"{CALL_ID}.1"
    assert not {"tracestate", "baggage", "timelimit", "expires"} & seen.keys()


def test_a_message_may_have_no_headers() -> None:
    assert "traceparent" not in received(None)
