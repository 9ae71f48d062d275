"""
Planted defects by which one tenant could stop the others, each caught by a life under attack (`hostile.live`).

They are registered apart: the rules that catch them hold only in lives with a hostile tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from callgate.domain import errors
from callgate.domain.answers import SchemaResult
from callgate.domain.delivery import Delivery, LinkOutcome, Published
from callgate.domain.provider import Billing, Failure
from callgate.services import ai_call_logger, delivery, output_checks
from callgate.services.recovery import RecoveryService
from tests.simulation import hostile, row_locks
from tests.simulation.hostile import HostileWorld
from tests.simulation.mutations.registry import Patched
from tests.simulation.provider import FaultyProvider
from tests.simulation.scheduler import Owner


@dataclass(frozen=True)
class HostileMutation:
    """One planted defect, and what must catch it: the first rule, or where chance decides one of the others."""

    name: str
    rules: tuple[str, ...]
    plant: Callable[[], Patched]


MUTATIONS: list[HostileMutation] = []
HARM = ("others_end_in_time", "others_keep_their_share", "recovery_goes_on")
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
    return waiting("take_due", "take_lost_messages")


@caught_by(*HARM)
def the_lease_release_waits() -> Patched:
    """The calls of a dead worker stay with it for as long as one of them is held."""
    return waiting("leases.expire")


@caught_by(*HARM)
def due_is_not_run_when_expire_fails() -> Patched:
    """One after the other, and the first failure ends the round."""
    run, expire = RecoveryService.run, RecoveryService._expire

    def in_a_row(self: Any) -> tuple[Any, int]:
        try:
            expire(self, self._reaper)
        except errors.LedgerUnavailable:
            return None, 0
        return run(self)

    return patch.object(RecoveryService, "run", in_a_row)


# Links.


@caught_by("recovery_goes_on", *HARM, "others_are_told_in_time")
def links_are_delivered_in_the_recovery_loop() -> Patched:
    """First everybody is told, then whatever is due is moved on."""
    run = RecoveryService.run

    def after_links(self: Any) -> tuple[Any, int]:
        try:
            while self._ai_call_logger._delivery.run():
                pass
        except errors.Unavailable:
            return None, 0
        return run(self)

    return patch.object(RecoveryService, "run", after_links)


@caught_by("a_failing_link_is_tried_ever_less_often")
def a_failing_link_is_tried_without_a_pause() -> Patched:
    """As long as it takes."""

    def at_once(link: Delivery, published: Published) -> LinkOutcome:
        again_s = None if published.why is None else 0.0
        return LinkOutcome(link.submission_id, published.why, again_s)

    return patch.object(delivery, "link_outcome_of", at_once)


@caught_by("a_failing_link_is_tried_ever_less_often")
def a_failing_link_is_tried_as_often_as_ever() -> Patched:
    """Every ten seconds, and without an end."""

    def steadily(link: Delivery, published: Published) -> LinkOutcome:
        return LinkOutcome(link.submission_id, published.why, 10.0 if published.why else None)

    return patch.object(delivery, "link_outcome_of", steadily)


# Answers that take too long to check.


@caught_by(*TWICE, *HARM, "nobody_waits_too_long_for_held_money")
def answers_are_checked_in_the_workers_own_process() -> Patched:
    """The interpreter is busy with one schema, and its process does nothing else: no lease is renewed."""

    def freeze(world: HostileWorld, process: Owner) -> SchemaResult:
        process.paused_until = world.scheduler.now + 45
        world.scheduler.wait(0, process)
        return errors.SchemaTooCostly("at last")

    return patch.object(hostile, "give_up_check", freeze)


@caught_by("a_check_given_up_posts_its_usage")
def a_killed_check_is_posted_as_unknown() -> Patched:
    """The answer came, and its bill with it."""
    paid = output_checks.failure_of

    def unknown(found: str | errors.OutputUnchecked | None) -> Failure | None:
        failure = paid(found)
        is_given_up = isinstance(found, errors.OutputUnchecked) and failure is not None
        return replace(failure, billing=Billing.UNKNOWN) if failure and is_given_up else failure

    return patch.object(ai_call_logger, "failure_of", unknown)


# Keys.


@caught_by("who_may_be_tried_is_not_refused", "others_succeed", *HARM)
def a_refused_key_opens_the_shared_breaker() -> Patched:
    """Breakers do not ask whose key was refused."""
    return patch.object(FaultyProvider, "credential", lambda self, org_id: "")
