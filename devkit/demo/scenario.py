"""What the scenarios of the demo share: the environment, the console, and counters independent of the ledger."""

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
    """What the scenarios did, as a pipeline would count it."""

    submitted: int = 0
    collapsed: int = 0
    refused: int = 0
    dead: int = 0
    redriven: int = 0

    @property
    def generations(self) -> int:
        """The number of calls, with each redrive as one more."""
        return self.submitted - self.collapsed + self.redriven


@dataclass
class DemoRun:
    """One run of the demo."""

    environment: DemoEnvironment
    console: DemoConsole
    counters: Counters = field(default_factory=Counters)

    def submit(self, requests: Sequence[LLMRequest]) -> list[Handle]:
        """Submit calls, and count them."""
        handles = self.environment.client.submit_many(requests)
        self.counters.submitted += len(handles)
        self.counters.collapsed += sum(handle.collapsed for handle in handles)
        return handles

    def wait(self, handles: Sequence[Handle], label: str, timeout_s: float) -> None:
        """Wait until every call has ended, and show the progress."""
        with self.console.progress(label, len(handles)) as advance:
            for _ in self.environment.completed(handles, timeout_s=timeout_s):
                advance()


def expect(is_kept: bool, expected: str, happened: str) -> None:
    """
    Check a promise.

    Raises:
        DemoFailed: It was not kept.
    """
    if not is_kept:
        raise DemoFailed(f"expected {expected}, but {happened}")
