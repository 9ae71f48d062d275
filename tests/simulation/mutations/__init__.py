"""
Planted defects. Each is a mistake somebody could make, and the simulation must catch it by a rule that it names.

Those of `hostile` are apart: only lives with a hostile tenant see them.
"""

from tests.simulation.mutations import (
    answers,
    breakers,
    by_hand,
    claims,
    classes,
    conversations,
    flow,
    liveness,
    money,
    pauses,
    places,
    repairs,
    slots,
    submitters,
    sums,
)
from tests.simulation.mutations.registry import MUTATIONS, Mutation

__all__ = [
    "MUTATIONS",
    "Mutation",
    "answers",
    "breakers",
    "by_hand",
    "claims",
    "classes",
    "conversations",
    "flow",
    "liveness",
    "money",
    "pauses",
    "places",
    "repairs",
    "slots",
    "submitters",
    "sums",
]
