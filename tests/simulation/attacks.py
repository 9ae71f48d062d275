"""A tenant that tries to stop the others, and its attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from callgate.domain import errors
from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import NewSubmission, SubmitOutcome
from callgate.domain.reports import EndReason
from callgate.domain.requests import LLMRequest, OnBudget
from tests.simulation import actors
from tests.simulation.actors import LINK, ExternalActor, a_request_of

if TYPE_CHECKING:
    from tests.simulation.hostile import HostileWorld

HOSTILE = "evil"
ATTACK_S = 40.0
BOMB = '{"type":"object","title":"never checked to the end"}'
JUNK = LINK.replace("store", "junk")
LOCK_S = (0.5, 5.0, 40.0)
LOCKED_MAX = 60
FLOOD = 6


class Tenant(ExternalActor):
    """The hostile one. It has lines of its own to ledger and broker, and no shame."""

    def __init__(self, world: HostileWorld, name: str) -> None:
        super().__init__(world, name)
        self._hostile_world = world
        self._n = 0

    def again_and_again(self, attack: Callable[[Tenant], None]) -> Callable[[], None]:
        """Attack until it is over."""

        def attack_until_over() -> None:
            rng, scheduler = self.world.rng, self.world.scheduler
            while scheduler.now < ATTACK_S:
                scheduler.wait(rng.uniform(1, 10), self)
                try:
                    attack(self)
                    scheduler.counts[f"attack: {attack.__name__}"] += 1
                except errors.Unavailable:
                    scheduler.counts["attack in vain"] += 1

        return attack_until_over

    def submit(self, *batch: NewSubmission, quietly: bool = False) -> list[CallKey]:
        """Submit, and publish or leave it to a sweep."""
        answers = self.line.submit(list(batch))
        if not quietly:
            self.publish(answers)
        return [a.key for a in answers if a.outcome is not SubmitOutcome.UNSTORABLE]

    def request(self, **changes: Any) -> LLMRequest:
        """A request that nobody made before."""
        self._n += 1
        fields = {"max_output_tokens": 100, "on_budget": OnBudget.REJECT, **changes}
        request = a_request_of(HOSTILE, "answer", f"{self.name} {self._n}", None)
        return request.model_copy(update=fields)

    def own_calls(self) -> list[CallKey]:
        """Its open calls, those that run first."""
        calls = [c for c in self.world.ledger.tables.calls.values() if c.org_id == HOSTILE]
        open_calls = [c for c in calls if c.state.is_open or c.due_at is not None]
        ranked = sorted(open_calls, key=lambda c: (c.state is not CallState.RUNNING, c.key))
        return [call.key for call in ranked[:LOCKED_MAX]]

    def lock(self, keys: Sequence[CallKey]) -> None:
        """Leave a transaction open that has locked them."""
        for key in keys:
            self._hostile_world.locks.hold(key, self.world.rng.choice(LOCK_S))


def lock_everything(tenant: Tenant) -> None:
    """Whatever of its own is open, queued, running or waiting."""
    tenant.lock(tenant.own_calls())


def lock_at_birth(tenant: Tenant) -> None:
    """Calls that nobody has claimed yet, so that every claim meets a lock."""
    batch = [tenant.submits.prepare(tenant.request()) for _ in range(FLOOD)]
    tenant.lock(tenant.submit(*batch, quietly=tenant.world.rng.random() < 0.5))


def flood_with_junk(tenant: Tenant) -> None:
    """Calls that never fit its budget, each with links that nobody can deliver."""
    has_begun = tenant.world.scheduler.counts["attack: flood_with_junk"] > 0
    count = FLOOD if has_begun else 10 * FLOOD
    requests = [tenant.request(max_output_tokens=16_000) for _ in range(count)]
    batch = [tenant.submits.prepare(request, link=JUNK) for request in requests]
    tenant.submit(*batch, *(actors.again(new, tenant.world) for new in batch))


def set_bombs(tenant: Tenant) -> None:
    """Calls whose answers take too long to check."""
    requests = [tenant.request(response_schema=BOMB) for _ in range(2)]
    tenant.submit(*map(tenant.submits.prepare, requests))


def churn(tenant: Tenant) -> None:
    """Submit, cancel and submit again, while somebody claims."""
    batch = [tenant.submits.prepare(tenant.request(), force=True) for _ in range(3)]
    keys = tenant.submit(*batch)
    tenant.world.scheduler.wait(tenant.world.rng.uniform(0, 0.1), tenant)
    tenant.line.end(keys, code=EndReason.CANCELLED, message="no need")
    tenant.submit(*(actors.again(new, tenant.world) for new in batch))


def fill_the_budget(tenant: Tenant) -> None:
    """Calls that wait for headroom, more and more of them."""
    requests = [tenant.request(on_budget=OnBudget.WAIT) for _ in range(3)]
    tenant.submit(*map(tenant.submits.prepare, requests))


ATTACKS = (lock_everything, lock_at_birth, flood_with_junk, set_bombs, churn, fill_the_budget)
