"""
How a planted defect is registered: a patch of the product, and the rules of which one must catch it.

A defect is patched in only while a seed is run. No product code knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.provider import Failure
from callgate.domain.retry import Tally
from callgate.services import ai_call_logger

Patched = AbstractContextManager[object]


@dataclass(frozen=True)
class Mutation:
    """One planted defect."""

    name: str
    rules: tuple[str, ...]
    """What must catch it: the first, or where chance decides one of the others."""
    plant: Callable[[], Patched]
    faults: Mapping[str, float] = field(default_factory=dict)
    """What must go wrong for the defect to matter: more often than by chance."""
    seed: int = 0
    """The first that noticed it when this was written; those before are tried last."""


MUTATIONS: list[Mutation] = []


def caught_by(
    *rules: str, seed: int = 0, **faults: float
) -> Callable[[Callable[[], Patched]], object]:
    """Register a defect under the name of its function; underscores in faults are spaces."""

    def register(plant: Callable[[], Patched]) -> object:
        # Outages and limits of a provider only for the defects about them: in lives without, calls wait less.
        chances = {
            "provider outage": 0.0,
            "provider limits": 0.0,
            "rate limited": 0.0,
            "places declared": 0.0,
            "slots short": 0.0,
            "conversations": 0.0,
            "classes and deadlines": 0.0,
            "calls paused": 0.0,
            "open calls bounded": 0.0,
        }
        chances |= {name.replace("_", " "): chance for name, chance in faults.items()}
        MUTATIONS.append(Mutation(plant.__name__, rules, plant, chances, seed))
        return plant

    return register


def deciding(change: Callable[[Failure, Tally, CallTypePolicy], tuple[Any, ...]]) -> Patched:
    """Have the decision about a failed attempt see something else."""
    decide = ai_call_logger.decide

    def decided(failure: Failure, tally: Tally, *, policy: CallTypePolicy, **rest: Any) -> Any:
        failure, tally, policy = change(failure, tally, policy)
        return decide(failure, tally, policy=policy, **rest)

    return patch.object(ai_call_logger, "decide", decided)


@contextmanager
def both(*patches: Patched) -> Iterator[None]:
    """Two patches as one."""
    first, second = patches
    with first, second:
        yield
