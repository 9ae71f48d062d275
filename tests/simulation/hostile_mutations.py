"""
Planted defects by which one tenant could stop the others, each caught by a life under attack (`hostile.live`).

They are registered apart from those of `mutations`: what must catch them is promised to the others, and is seen only in
lives with a hostile tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from callgate.domain import errors
from callgate.domain.retry import Billing
from callgate.services.due import DueService
from tests.simulation import hostile, row_locks
from tests.simulation.hostile import HostileWorld
from tests.simulation.mutations import Patched
from tests.simulation.provider import ProviderLine
from tests.simulation.scheduler import Owner


@dataclass(frozen=True)
class HostileMutation:
    """One planted defect, and what must catch it: the first rule, or where chance decides one of the others."""

    name: str
    rules: tuple[str, ...]
    plant: Callable[[], Patched]


MUTATIONS: list[HostileMutation] = []
HARM = ("others_end_in_time", "others_keep_their_share")
TWICE = ("others_are_sent_once", "others_post_their_usage", "others_succeed")


def caught_by(*rules: str) -> Callable[[Callable[[], Patched]], object]:
    """Register a defect under the name of its function."""

    def register(plant: Callable[[], Patched]) -> object:
        MUTATIONS.append(HostileMutation(plant.__name__, rules, plant))
        return plant

    return register


def waiting(*statements: str) -> Patched:
    """Have some statements wait for rows that somebody holds."""
    return patch.object(row_locks, "WAITS", frozenset(statements))


# Locks.


@caught_by(*HARM)
def reserve_waits_for_a_locked_row() -> Patched:
    """A batch of claims stands behind one call."""
    return waiting("reserve")


@caught_by(*HARM)
def settle_waits_for_a_locked_row() -> Patched:
    """A batch of settlements fails for one call, and is tried again as it was."""
    return waiting("settle")


@caught_by("others_are_told_in_time", *HARM)
def the_due_query_waits_for_a_locked_row() -> Patched:
    """Recovery, retries and links stand behind one call."""
    return waiting("due")


@caught_by(*HARM)
def the_lease_release_waits() -> Patched:
    """The calls of a dead worker stay with it for as long as one of them is held."""
    return waiting("leases.expire")


@caught_by(*HARM)
def due_is_not_run_when_expire_fails() -> Patched:
    """One after the other, and the first failure ends the round."""
    run, expire = DueService.run, DueService._expire

    def in_a_row(self: Any) -> tuple[Any, int]:
        try:
            expire(self, self._judge)
        except errors.LedgerUnavailable:
            return None, 0
        return run(self)

    return patch.object(DueService, "run", in_a_row)


@caught_by("every_call_ends")
def what_was_locked_is_never_claimed_again() -> Patched:
    """Nobody comes back to it: the tenant's own calls, too, are accepted, and must end."""
    return patch.object(DueService, "_come_back", lambda self: None)


# Answers that take too long to check.


@caught_by(*TWICE, *HARM)
def answers_are_checked_in_the_workers_own_process() -> Patched:
    """The interpreter is busy with one schema, and its process does nothing else: no lease is renewed."""

    def freeze(world: HostileWorld, process: Owner) -> None:
        process.paused_until = world.scheduler.now + 45
        world.scheduler.wait(0, process)
        raise errors.SchemaTooCostly("at last")

    return patch.object(hostile, "give_up_check", freeze)


@caught_by("a_check_given_up_posts_its_usage")
def a_killed_check_is_posted_as_unknown() -> Patched:
    """The answer came, and its bill with it."""
    from callgate.services import output_checks

    paid = output_checks._paid

    def unknown(*arguments: Any, **options: Any) -> Any:
        return replace(paid(*arguments, **options), billing=Billing.UNKNOWN)

    return patch.object(output_checks, "_paid", unknown)


# Keys.


@caught_by("others_succeed", *HARM)
def a_refused_key_opens_everybodys_breaker() -> Patched:
    """Breakers do not ask whose key was refused."""
    return patch.object(ProviderLine, "credential", lambda self, org_id: "")
