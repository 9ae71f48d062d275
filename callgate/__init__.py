"""LLM calls as Celery tasks: none paid twice, no budget overrun, none unrecorded, none lost."""

from typing import TYPE_CHECKING, Any

from callgate.domain.requests import LLMRequest, LLMResult, Message, Usage

if TYPE_CHECKING:
    from callgate.client import Client, Handle

__all__ = ["Client", "Handle", "LLMRequest", "LLMResult", "Message", "Usage"]


def __getattr__(name: str) -> Any:
    """Load the client only when it is asked for: models alone need no Celery and no database driver."""
    if name in ("Client", "Handle"):
        from callgate import client

        return getattr(client, name)
    raise AttributeError(f"module 'callgate' has no attribute {name!r}")
