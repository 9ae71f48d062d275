"""
What goes wrong in one seed, and how often.

Every seed leaves about half of the faults out and has the others rarely or often ("swarm testing": what is on all the
time hides what needs quiet). Source: Groce et al., "Swarm Testing", ISSTA 2012.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

STATEMENT = {
    "slow statement": 0.04,
    "refused": 0.03,
    "answer lost": 0.03,
    "lands late": 0.02,
    "dies before statement": 0.01,
    "dies after statement": 0.02,
    "pauses": 0.02,
}
"""What may happen to one statement: how often."""
OUTAGE = {"outage begins": 0.01}
"""An outage may begin anywhere; it hurts most when a claim or an answer is on its way."""
PROVIDER_OUTAGE = {"provider outage": 0.4}
"""Whether a provider has an outage; asked twice a life."""
PROVIDER_LIMITS = {"provider limits": 0.06}
"""Whether a provider has limits; asked once, before a life begins."""
MESSAGE = {"lost at pop": 0.05, "repeated": 0.06, "late": 0.08}
"""What may happen to one message."""
PUBLISH = {"broker refuses": 0.03, "broker's answer lost": 0.03, "dies before publish": 0.01}
TASK = {"dies after its task": 0.04}
REPLY = {
    "conflict": 0.08,
    "rate limited": 0.04,
    "server error": 0.06,
    "reset": 0.05,
    "connection refused": 0.05,
    "hangs": 0.04,
    "slow reply": 0.10,
    "malformed reply": 0.04,
    "breaks the schema": 0.05,
    "bad request": 0.03,
    "empty": 0.02,
    "no usage": 0.03,
    "dearer than held": 0.03,
    "unstorable": 0.03,
    "dies while asking": 0.05,
    "pauses while asking": 0.05,
}
"""What may happen to one provider request."""
OTHER_EVENTS = (
    "accepted but not published",
    "answer late",
    "attempt unknown",
    "breaker changed by hand",
    "breaker closed",
    "breaker opened",
    "broker away",
    "broker flushed",
    "call cancelled",
    "call dead",
    "call rejected",
    "dead letter discarded",
    "dead letter redriven",
    "ledger away",
    "limit changed",
    "key refused",
    "link told again",
    "lost message found",
    "message delivered again",
    "own breaker closed",
    "own breaker opened",
    "probe",
    "refused: exhausted",
    "refused: held",
    "refused: too_small",
    "refused: not_configured",
    "refused: provider",
    "rejected: provider",
    "released",
    "repair",
    "settled after the period",
    "settled in a batch",
    "settled above its hold",
    "settled by hand",
    "statement in an outage",
    "submission failed",
    "submission idempotency_mismatch",
    "submission joined",
    "submission replayed",
    "unknown became succeeded",
    "released by headroom",
    "key blocked",
    "key unblocked",
    "limit learned",
    "over its limit",
    "refused: limit",
    "places declared",
    "slots short",
    "gave way",
    "refused: concurrency",
    "woken for a place",
    "later turn submitted",
    "turn answered",
    "conversation ended",
    "calls paused",
    "resumed",
    "refused: paused",
    "rejected: paused",
    "submission refused: frozen",
    "submission refused: busy",
    "deadline passed",
    "deadline moved",
    "raised to a higher class",
)
"""What a few hundred seeds must have seen, besides every fault."""
MUCH_BY_HAND = "much by hand"
"""No fault, and never drawn: so many times fifteen operators settle bills by hand, for defects about that."""
MUCH_REDRIVEN = "much redriven"
"""The same: so many times fifteen operators redrive dead letters."""
ONE_FAILS = "one organisation fails"
"""The same: for three minutes the provider refuses the key for one organisation, and not for the others."""
KINDS_OF_LIMITS = (
    "only requests",
    "only slots",
    "only tokens",
    "only used tokens",
    "limits declared",
    "limits not declared",
    "limits named",
)
"""No faults, and never drawn: which limits a provider has, for defects about those."""
PLACES = "places declared"
"""No fault, and drawn by itself: whether it is declared how many calls of an organisation may run at a time."""
SLOTS_SHORT = "slots short"
"""The same: whether many calls come for few slots of workers."""
CONVERSATIONS = "conversations"
"""The same: whether some have conversations with tools."""
CLASSES = "classes and deadlines"
"""The same: whether submissions have classes and deadlines."""
CALLS_PAUSED = "calls paused"
"""The same: whether operators pause calls and freeze organisations."""
OPEN_CALLS_BOUNDED = "open calls bounded"
"""The same: whether an organisation may have few open calls."""
NEVER_DRAWN = (
    *(MUCH_BY_HAND, MUCH_REDRIVEN, ONE_FAILS, PLACES, SLOTS_SHORT, CONVERSATIONS),
    *(CLASSES, CALLS_PAUSED, OPEN_CALLS_BOUNDED),
    *KINDS_OF_LIMITS,
)
ALL = {
    **STATEMENT,
    **OUTAGE,
    **PROVIDER_OUTAGE,
    **PROVIDER_LIMITS,
    **MESSAGE,
    **PUBLISH,
    **TASK,
    **REPLY,
}


@dataclass
class Faults:
    """The faults of one seed, by name, with their chances."""

    rng: random.Random
    chances: dict[str, float] = field(default_factory=dict)

    @classmethod
    def drawn(cls, rng: random.Random, always: Mapping[str, float] = {}) -> Faults:
        """Draw them; `always` sets some for sure."""
        chances = {
            name: chance * rng.choice((0.5, 1, 3))
            for name, chance in ALL.items()
            if rng.random() < 0.55
        }
        return cls(rng, {**chances, **always})

    def one_of(self, kinds: Mapping[str, float]) -> str | None:
        """Which of these happens now, if any."""
        at = self.rng.random()
        for kind in kinds:
            at -= self.chances.get(kind, 0.0)
            if at < 0:
                return kind
        return None

    def end(self) -> None:
        """From now on nothing goes wrong."""
        self.chances.clear()
