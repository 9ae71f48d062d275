"""Planted defects of repairs: they are not held for, not paid, without end, or about the wrong answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import claims
from callgate.adapters.memory.rows import AttemptRow
from callgate.domain.calls import AttemptKind, AttemptStatus
from callgate.domain.provider import Priced
from callgate.services import ai_call_logger, reservations
from callgate.services.reservations import Prepared, Reservations
from callgate.services.review import Assessment
from tests.simulation.mutations.registry import Patched, caught_by


@caught_by("the_worst_case_is_held", breaks_the_schema=0.6)
def repair_without_a_hold() -> Patched:
    """The hold of the first attempt is thought to cover its repair."""
    prepare = Reservations.prepare

    async def prepared(self: Any, *asked: Any) -> Any:
        made = await prepare(self, *asked)
        if isinstance(made, Prepared) and made.repair is not None:
            return replace(made, reserve=replace(made.reserve, hold_nano_usd=0))
        return made

    return patch.object(Reservations, "prepare", prepared)


@caught_by("posted_is_billed", breaks_the_schema=0.6)
def repair_for_free() -> Patched:
    """What callgate asks for on its own account is thought to cost nobody anything."""
    assess = ai_call_logger.assess

    def free(costs: Any, view: Any, attempt: Any, *rest: Any) -> Assessment:
        is_repair = attempt.kind is AttemptKind.REPAIR
        return Assessment(Priced(0, "")) if is_repair else assess(costs, view, attempt, *rest)

    return patch.object(ai_call_logger, "assess", free)


@caught_by("a_refused_repair_is_dead", breaks_the_schema=0.6)
def repair_that_does_not_fit_is_rejected() -> Patched:
    """The same submission makes the call again, and pays the broken answer again."""
    end = claims._end_refused

    def rejected(tables: Any, call: Any, claim: Any, *rest: Any) -> None:
        end(tables, call, replace(claim, repair_after=None), *rest)

    return patch.object(claims, "_end_refused", rejected)


@caught_by("a_repair_shows_what_is_broken", breaks_the_schema=0.6)
def repair_what_is_truncated() -> Patched:
    """Half an answer breaks its schema too."""
    flaw_of = ai_call_logger.flaw_of

    def broken(*asked: Any) -> Any:
        flaw = flaw_of(*asked)
        if flaw is not None and flaw.code == "output_truncated":
            return replace(flaw, code="invalid_output", retryable=True)
        return flaw

    return patch.object(ai_call_logger, "flaw_of", broken)


@caught_by("repairs_are_few", breaks_the_schema=0.6)
def repair_without_end() -> Patched:
    """Nobody counts repairs."""
    return patch.object(AttemptRow, "is_repair_used", property(lambda self: False))


@caught_by("repairs_are_few", breaks_the_schema=0.6, dies_while_asking=0.3)
def repair_once_more_after_a_death() -> Patched:
    """A repair whose worker was killed is thought to have cost nothing."""
    used = property(
        lambda self: self.kind is AttemptKind.REPAIR and self.status is not AttemptStatus.UNKNOWN
    )
    return patch.object(AttemptRow, "is_repair_used", used)


@caught_by("what_may_be_repaired_is", breaks_the_schema=0.6)
def ask_the_same_again() -> Patched:
    """A broken answer is forgotten."""
    return patch.object(reservations, "why_no_repair", lambda *_, **__: "too_large")


@caught_by("a_repair_is_called_one", breaks_the_schema=0.4, provider_outage=1, seed=37)
def probe_with_a_repair() -> Patched:
    """What asks whether the provider is back repairs an answer as well, and is not counted."""
    return patch.object(Prepared, "for_kind", lambda self, _: self.repair or self.request)
