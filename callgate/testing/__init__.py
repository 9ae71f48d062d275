"""
The testing kit for authors of pipelines; see docs/testing.md.

    from callgate.testing import MemoryClient, Refusal

    def test_a_summary_is_stored(callgate_client: MemoryClient) -> None:
        callgate_client.script.reply(Refusal(429), "a summary")
        ...

Its names are imported when they are first used: the plugin of pytest, which is in this package, is loaded by every run
of pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callgate.testing.client import MemoryClient
    from callgate.testing.links import LinkCall
    from callgate.testing.record import AttemptRecord, SubmissionRecord
    from callgate.testing.script import (
        CONNECTION_LOST,
        TIMEOUT,
        Answer,
        Refusal,
        Script,
        Step,
        UnscriptedRequest,
    )
    from callgate.testing.world import NothingHappens

__all__ = [
    "CONNECTION_LOST",
    "TIMEOUT",
    "Answer",
    "AttemptRecord",
    "LinkCall",
    "MemoryClient",
    "NothingHappens",
    "Refusal",
    "Script",
    "Step",
    "SubmissionRecord",
    "UnscriptedRequest",
]

_OTHERS = {
    "AttemptRecord": "record",
    "LinkCall": "links",
    "MemoryClient": "client",
    "NothingHappens": "world",
    "SubmissionRecord": "record",
}
"""Where the names are that are not in `script`."""


def __getattr__(name: str) -> Any:
    """Import what a name stands for."""
    if name not in __all__:
        raise AttributeError(f"module 'callgate.testing' has no attribute {name!r}")
    return getattr(import_module(f"callgate.testing.{_OTHERS.get(name, 'script')}"), name)
