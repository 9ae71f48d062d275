"""Operators who pause calls and freeze organisations in one life, and resume what they paused."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from callgate.domain.errors import Unavailable
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.simulation.actors import ExternalActor
from tests.simulation.faults import CALLS_PAUSED

if TYPE_CHECKING:
    from tests.simulation.world import World

CHANCE = 0.15
"""Of a life in which operators pause calls."""
ORGS = ("acme", "nova", "zeta")
LENGTHS_S = (1, 5, 20, 60)
FORGOTTEN = 0.2
"""Of such lives: nobody resumes what an operator left paused who died, so calls wait to their end."""


class PausePlan:
    """Who pauses what, and for how long; drawn apart, so that lives without it stay as they were."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = random.Random(f"pauses of {seed}")  # noqa: S311
        self.is_drawn = self._rng.random() < world.faults.chances.pop(CALLS_PAUSED, CHANCE)

    def plan(self) -> None:
        """Have operators come."""
        if not self.is_drawn:
            return
        self._world.scheduler.counts[CALLS_PAUSED] += 1
        for n in range(self._rng.choice((1, 2, 4, 6))):
            operator = ExternalActor(self._world, f"h{n}")
            key, length_s = self._key(), self._rng.choice(LENGTHS_S)
            work = partial(self._pause_for_a_while, operator, key, length_s)
            self._world.scheduler.spawn(operator, work, self._rng.uniform(0, 80))

    def next_shift(self) -> None:
        """Resume whatever is paused still."""
        if self.is_drawn and self._rng.random() >= FORGOTTEN:
            operator = ExternalActor(self._world, "h-last")
            self._world.scheduler.spawn(operator, partial(self._resume_all, operator))

    def _key(self) -> PauseKey:
        rng, org_id = self._rng, self._rng.choice(ORGS)
        call_type = rng.choice(("extract", "chat", "draft"))
        return rng.choice(
            (
                PauseKey(),
                PauseKey(provider="sim"),
                PauseKey(model="sim-1"),
                PauseKey(call_type=call_type),
                PauseKey(org_id=org_id),
                PauseKey(org_id=org_id, call_type=call_type),
                PauseKey(org_id=org_id, is_freeze=True),
                PauseKey(org_id=org_id, is_freeze=True),
            )
        )

    def _pause_for_a_while(self, operator: ExternalActor, key: PauseKey, length_s: float) -> None:
        scheduler, by = self._world.scheduler, By(operator.name, f"why {operator.name} paused")
        while not self._has_paused(operator, key, by):
            scheduler.wait(1, operator)
        scheduler.wait(length_s, operator)
        while not self._has_resumed(operator, key, by):
            scheduler.wait(1, operator)

    def _has_paused(self, operator: ExternalActor, key: PauseKey, by: By) -> bool:
        try:
            operator.line.pause(key, by=by)
        except Unavailable:
            return False
        self._world.scheduler.counts["paused by an operator"] += 1
        return True

    def _has_resumed(self, operator: ExternalActor, key: PauseKey, by: By) -> bool:
        try:
            operator.line.resume(key, by=by)
        except Unavailable:
            return False
        return True

    def _resume_all(self, operator: ExternalActor) -> None:
        by = By(operator.name, "the shift is over")
        for key in list(self._world.ledger.tables.pauses):
            while not self._has_resumed(operator, key, by):
                self._world.scheduler.wait(1, operator)
