"""Which classes and deadlines submissions have in one life, and how many calls an organisation may have open."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from callgate.domain.call_order import Priority
from callgate.domain.ledger import NewSubmission
from callgate.services.submit import ANY_TIME, SubmissionOptions
from tests.simulation.faults import CLASSES, OPEN_CALLS_BOUNDED

CHANCE = 0.2
"""Of a life in which submissions have classes and deadlines."""
CHANCE_BOUNDED = 0.1
"""Of a life in which an organisation may have few open calls."""
CLASS_AGE = timedelta(seconds=30)
"""A class is worth so much age in a life, which is short: six hours else."""
START_WITHIN_S = (None, None, None, 3, 15, 60)
ANY = 10**9


@dataclass(slots=True)
class DrawnOptions:
    """The options of one life, drawn apart, so that lives without them stay as they were."""

    rng: random.Random
    is_drawn: bool
    open_calls_max: int

    @classmethod
    def of(cls, seed: int, chances: dict[str, float]) -> DrawnOptions:
        """Draw what the submissions of a life have."""
        rng = random.Random(f"options of {seed}")  # noqa: S311
        is_drawn = rng.random() < chances.pop(CLASSES, CHANCE)
        is_bounded = rng.random() < chances.pop(OPEN_CALLS_BOUNDED, CHANCE_BOUNDED)
        return cls(rng, is_drawn, rng.choice((1, 2, 4, 8)) if is_bounded else ANY)

    def one(self, now: datetime) -> SubmissionOptions:
        """The options of one submission."""
        if not self.is_drawn:
            return ANY_TIME
        within_s = self.rng.choice(START_WITHIN_S)
        start_before = None if within_s is None else now + timedelta(seconds=within_s)
        return SubmissionOptions(self.rng.choice(list(Priority)), start_before)

    def varied(self, new: NewSubmission, now: datetime) -> NewSubmission:
        """The same submission with options of its own."""
        if not self.is_drawn:
            return new
        options = self.one(now)
        return replace(new, priority=options.priority, start_within_s=options.start_within_s(now))
