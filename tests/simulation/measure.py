"""
Ten minutes without a provider while 500 calls are queued: `python -m tests.simulation.measure`.

The product's own limits and waits, two worker processes, a virtual clock, and nothing else that goes wrong.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from callgate.domain.budgets import Window
from callgate.domain.calls import CallState
from callgate.domain.catalogue import CallTypePolicy
from tests.simulation import actors
from tests.simulation.outages import Outage
from tests.simulation.provider import Heard
from tests.simulation.world import CATALOGUE, World, quiet

CALLS = 500
OUTAGE_S = 600.0
RICH_NANO_USD = 10**15
KINDS = ("server error", "reset")
SLOW = "hangs"
"""Not promised, but measured: nobody knows before the deadline that such a provider does not answer."""
SEVERAL = tuple(f"org-{n}" for n in range(1, 8))


@dataclass(frozen=True, slots=True)
class Measured:
    """What an outage did to a queue."""

    kind: str
    orgs: int
    calls: int
    states: dict[str, int]
    """Calls by the state they ended in."""
    requests_in_outage: int
    requests: int
    holds_posted: int
    """Attempts that posted their whole hold because nobody knows their bill."""
    unknown_per_call_max: int
    orgs_asked: int
    """Organisations whose calls met the outage."""
    failures_when_told: tuple[int, ...]
    """How many attempts had failed, each time operators were told that the provider is left alone."""
    closed_after_s: float
    """From the end of the outage to the moment when the provider was called again as usual."""
    seconds: float
    """Until the last call had ended."""


class OutageWorld(World):
    """500 calls, rich organisations, and a provider that is away from the first moment on."""

    catalogue = CATALOGUE.model_copy(
        update={"default": CallTypePolicy(max_output_tokens_default=100), "call_types": {}}
    )

    slots = 200

    def __init__(self, kind: str, orgs: Sequence[str]) -> None:
        self.orgs = orgs
        self.told: list[tuple[str, float, int]] = []
        super().__init__(seed=1)
        self.faults.end()
        self.killers = 0
        self.own_keys = ()
        self.fail_provider(Outage(kind, OUTAGE_S))

    def run(self) -> None:
        """Queue the calls at once, and wait until all have ended."""
        for n in range(CALLS):
            actors.submit_one(self, f"p{n}", self.orgs[n % len(self.orgs)], f"question {n}")
        self.scheduler.after(OUTAGE_S, self._end_trouble)
        self.scheduler.run(is_over=self._is_at_rest, skip_to=self._next_due_s)
        self.invariants.at_rest()

    def _set_budgets(self) -> None:
        for org_id in self.orgs:
            self.ledger.set_budget(org_id, "org", Window.DAY, RICH_NANO_USD)

    def hear(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Note what operators are told, and when."""
        if str(event["event"]).startswith("breaker."):
            failed = sum(heard is Heard.FAILED for heard in self.heard.values())
            self.told.append((event["event"], self.scheduler.now, failed))
        raise structlog.DropEvent


def measure(kind: str, orgs: Sequence[str]) -> Measured:
    """Run one outage."""
    world = OutageWorld(kind, orgs)
    before = structlog.get_config()
    structlog.configure(
        processors=[world.hear], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    try:
        world.run()
    finally:
        world.scheduler.close()
        structlog.configure(**before)
    tables = world.ledger.tables
    rows = list(tables.attempts.values())
    in_outage = [row for row in rows if world.heard[row.attempt_id] is Heard.FAILED]
    unknown = Counter(row.key for row in rows if row.is_left_open)
    closed_at = [at for event, at, _ in world.told if event == "breaker.closed"]
    return Measured(
        kind=kind,
        orgs=len(orgs),
        calls=len(tables.calls),
        states=dict(Counter(str(call.state) for call in tables.calls.values())),
        requests_in_outage=len(in_outage),
        requests=len(rows),
        holds_posted=sum(unknown.values()),
        unknown_per_call_max=max(unknown.values()),
        orgs_asked=len({tables.calls[row.key].org_id for row in in_outage}),
        failures_when_told=tuple(n for event, _, n in world.told if event == "breaker.opened"),
        closed_after_s=round(closed_at[0] - OUTAGE_S, 1),
        seconds=round(world.scheduler.now, 1),
    )


def is_good(measured: Measured) -> bool:
    """No call dead, at most ten holds posted, every call succeeded, operators told at the third failure."""
    is_whole = measured.states == {CallState.SUCCEEDED: CALLS}
    return is_whole and measured.holds_posted <= 10 and measured.failures_when_told == (3,)


def main() -> int:
    """Play each kind of outage, for one organisation and for several: a JSON object each; 1 if a promise is broken."""
    quiet()
    measured = [measure(kind, orgs) for kind in (*KINDS, SLOW) for orgs in (("acme",), SEVERAL)]
    for one in measured:
        sys.stdout.write(json.dumps(asdict(one)) + "\n")
    return 0 if all(is_good(one) for one in measured if one.kind in KINDS) else 1


if __name__ == "__main__":
    sys.exit(main())
