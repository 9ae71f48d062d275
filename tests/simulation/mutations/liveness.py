"""Planted defects of liveness: calls that never end, or are repeated without a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import posting as memory_posting
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.calls import CallState
from callgate.services.recovery import RecoveryService
from tests.simulation.mutations.registry import Patched, caught_by, deciding

RETRY_UNKNOWN = {"on_unknown": "retry"}


@caught_by("no_repeat_without_a_reason", conflict=0.5)
def try_once_too_often() -> Patched:
    """The first attempt is not counted."""
    return deciding(
        lambda failure, t, policy: (failure, replace(t, attempts=t.attempts - 1), policy)
    )


@caught_by("no_repeat_without_a_reason")
def repeat_what_may_not_be_repeated() -> Patched:
    """A call type whose calls end with an UNKNOWN outcome pays twice."""

    return deciding(
        lambda failure, t, policy: (failure, t, policy.model_copy(update=RETRY_UNKNOWN))
    )


@caught_by("no_repeat_without_a_reason", bad_request=0.2)
def repeat_what_cannot_help() -> Patched:
    """A bad request is sent again."""
    return deciding(lambda failure, t, policy: (replace(failure, retryable=True), t, policy))


@caught_by("every_call_ends", lost_at_pop=0.3)
def a_sweep_finds_nothing() -> Patched:
    """Lost messages stay lost."""
    return patch.object(RecoveryService, "sweep", lambda self, sent_at: 0)


@caught_by("every_call_ends")
def what_waits_is_never_due() -> Patched:
    """The due query forgets the retries."""
    needs = MemoryLedger._needs

    def forgetful(self: Any, call: Any, expire: bool) -> bool:
        return call.state is not CallState.WAITING and needs(self, call, expire)

    return patch.object(MemoryLedger, "_needs", forgetful)


@caught_by("every_call_ends", pauses_while_asking=0.4, lost_at_pop=0.3)
def late_answers_are_never_due() -> Patched:
    """A late answer whose log message was lost is never settled."""
    return patch.object(MemoryLedger, "_due_late_answers", lambda self, limit, now: ())


@caught_by("whatever_is_left_is_due", pauses_while_asking=0.4)
def forget_an_overtaken_attempt() -> Patched:
    """A call that has ended is thought to hold nothing."""
    succeed = memory_posting._succeed

    def forgetful(tables: Any, call: Any, winner: Any, now: Any) -> None:
        succeed(tables, call, winner, now)
        call.due_at = None

    return patch.object(memory_posting, "_succeed", forgetful)


@caught_by("poison_is_put_aside", dies_while_asking=0.5)
def never_give_up_a_poisonous_call() -> Patched:
    """Nobody counts how many workers a call has killed."""
    return deciding(lambda failure, t, policy: (failure, replace(t, worker_losses=0), policy))
