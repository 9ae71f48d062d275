"""What the acts of the demo share: the stage, the screen, and a tally kept apart from the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from callgate import LLMRequest
from callgate.client import Handle
from devkit.demo.console import DemoConsole
from devkit.demo.environment import DemoEnvironment, DemoFailed

ORG = "acme"
ORG_LIMIT_NANO_USD = 10_000_000_000
SHORT_TIMEOUT_S = 120.0


@dataclass
class Counters:
    """What the acts did, as a pipeline would count it."""

    submitted: int = 0
    collapsed: int = 0
    refused: int = 0
    dead: int = 0
    redriven: int = 0

    @property
    def generations(self) -> int:
        """Calls that were begun, each redrive included."""
        return self.submitted - self.collapsed + self.redriven


@dataclass
class DemoProgress:
    """Where the acts play."""

    stage: DemoEnvironment
    screen: DemoConsole
    tally: Counters = field(default_factory=Counters)

    def submit(self, requests: Sequence[LLMRequest]) -> list[Handle]:
        """Submit, and count it."""
        handles = self.stage.client.submit_many(requests)
        self.tally.submitted += len(handles)
        self.tally.collapsed += sum(handle.collapsed for handle in handles)
        return handles

    def wait(self, handles: Sequence[Handle], what: str, timeout_s: float) -> None:
        """Wait until every call has ended, and show how far that is."""
        with self.screen.progress(what, len(handles)) as advance:
            for _ in self.stage.ends(handles, timeout_s=timeout_s):
                advance()


def expect(is_so: bool, expected: str, happened: str) -> None:
    """
    Check a promise.

    Raises:
        DemoFailed: It was not kept.
    """
    if not is_so:
        raise DemoFailed(f"expected {expected}, but {happened}")
