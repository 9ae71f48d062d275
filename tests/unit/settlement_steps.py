"""Steps of tests about settlements."""

from __future__ import annotations

import asyncio
from typing import Any

from callgate.domain.calls import AttemptRef
from tests.support.service_world import ServiceWorld

SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "string"}},
    "required": ["total"],
    "additionalProperties": False,
}


def answered(world: ServiceWorld, text: str = "hello", **fields: Any) -> AttemptRef:
    """A call whose reply is recorded, and not settled yet."""
    key = world.submit(text, **fields).key
    asyncio.run(world.llm.execute(key))
    (ref,) = [ref for ref in world.queue.settle_tasks if ref.key == key]
    return ref
