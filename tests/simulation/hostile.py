"""
A life beside a hostile tenant: how much of their throughput do the other organisations lose?

Each life is run twice, with the tenant and without it. The others do the same in both: each of their pipelines
submits a call, waits for its end, and submits the next. The harm is the difference between the calls that they finish.
Nothing else goes wrong, except that a worker may die in both lives.

Three organisations share the workers. Whatever one of them does, the other two keep two thirds of their throughput.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from greenlet import getcurrent

from callgate.adapters.memory import delivery as memory_delivery
from callgate.domain import errors
from callgate.domain.answers import Answer, SchemaResult
from callgate.domain.budgets import Window
from callgate.domain.calls import CallState
from callgate.domain.ledger import NewSubmission
from callgate.services import delivery
from tests.simulation import actors
from tests.simulation.actors import LINK, ExternalActor, a_request_of
from tests.simulation.attacks import ATTACK_S, ATTACKS, BOMB, HOSTILE, JUNK, LOCK_S, Tenant
from tests.simulation.faults import CALLS_PAUSED, CLASSES, OPEN_CALLS_BOUNDED
from tests.simulation.faulty_ledger import TIMEOUT_S
from tests.simulation.hostile_invariants import TenantInvariants
from tests.simulation.outages import Outage
from tests.simulation.process import Process
from tests.simulation.row_locks import RowLocks
from tests.simulation.run import _report
from tests.simulation.scheduler import Owner
from tests.simulation.violation import Violation
from tests.simulation.world import HOLDS, VALIDATOR, World

if TYPE_CHECKING:
    from callgate.domain.delivery import Delivery

OTHERS = ("acme", "nova")
PIPELINES = 2
"""Of each of the others."""
SHARE_MIN = 1 / 2
"""Of what the others get done without the tenant, in one life: few calls. `test_hostile_lives` has the whole."""
RICH_NANO_USD = 10**15
CHECK_S = 1.0
"""After this long a check is given up."""
RESTART_S = 2.0
NOT_IN_IT = ("provider limits", CLASSES, CALLS_PAUSED, OPEN_CALLS_BOUNDED)
"""Of what other lives have."""
REFUSAL_S = 1.0
"""How long the broker takes to refuse a message."""
LINKS_WATCHED_S = 40.0
BATCHES = ((delivery, "BATCH_MAX", 10), (memory_delivery, "ORG_LINKS_MAX", 5))
"""Smaller than they are, as the tenant's crowds are."""


class Validator:
    """Checks like the real one, and gives up on a schema that takes too long."""

    def __init__(self, world: HostileWorld) -> None:
        self._world = world

    def check_schema(self, schema: str) -> str | None:
        """See `OutputValidatorPort`."""
        return VALIDATOR.check_schema(schema)

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[SchemaResult]:
        """See `OutputValidatorPort`."""
        return [self._check(answer) for answer in answers]

    def _check(self, answer: Answer) -> SchemaResult:
        if answer.schema == BOMB:
            return give_up_check(self._world, self._world.running_process())
        (found,) = VALIDATOR.check_all([answer], CHECK_S)
        return found


def give_up_check(world: HostileWorld, process: Owner) -> SchemaResult:
    """A child is given the check, and killed; its parent waits, and goes on."""
    world.scheduler.counts["check given up"] += 1
    world.scheduler.wait(CHECK_S, process)
    return errors.SchemaTooCostly("it takes too long to check")


class HostileWorld(World):
    """Two organisations that work, one that attacks, and no other faults."""

    def __init__(self, seed: int, *, has_tenant: bool = True) -> None:
        self.validator: Any = Validator(self)
        self.is_over = False
        self.deaths: dict[str, float] = {}
        """When the world killed which worker."""
        self.plan = random.Random(seed)  # noqa: S311 - what happens in both lives alike
        super().__init__(seed, faults=dict.fromkeys(NOT_IN_IT, 0.0))
        self.invariants: TenantInvariants = TenantInvariants(self)
        self.locks = RowLocks(self)
        self._has_tenant = has_tenant
        self.faults.end()
        self.killers, self.default_limit = 0, None
        self.own_keys = (HOSTILE,)
        self.slots = self.plan.choice((8, 12))
        self.fails_expire = self.plan.random() < 0.3
        """No lease can be expired: nobody knows how, but somebody has seen to it."""
        refused_s = self.plan.choice((0, ATTACK_S / 3, ATTACK_S))
        self.fail_provider(Outage("key refused", refused_s, credentials=(HOSTILE,)))

    def run(self) -> None:
        """Live through the attack, then come to rest."""
        for org_id in OTHERS:
            for n in range(PIPELINES):
                pipeline = _Pipeline(self, f"{org_id}{n}", org_id, self.plan.random())
                self.scheduler.spawn(pipeline, pipeline.work, self.plan.uniform(0, 2))
        for _ in range(0 if self.fails_expire else self.plan.choice((0, 1, 2))):
            self.scheduler.after(self.plan.uniform(3, 12), self._kill_one)
        if self._has_tenant:
            for attack in ATTACKS:
                tenant = Tenant(self, f"evil-{attack.__name__}")
                self.scheduler.spawn(tenant, tenant.again_and_again(attack))
        self.scheduler.after(ATTACK_S, self._end_trouble)
        self.scheduler.run(is_over=self._is_at_rest, skip_to=self._next_due_s)
        if not self._is_at_rest():
            raise Violation("every_call_ends", f"nothing is planned, and {self._unrest()}")
        self.invariants.at_rest()
        self.is_over = True

    def execute(
        self, owner: Owner, name: str, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """A statement takes effect, with some rows held by the tenant."""
        is_own = isinstance(owner, Tenant)
        self.ledger.tables.locked = set() if is_own else self.locks.held()
        result = super().execute(owner, name, arguments, options)
        if name == "take_due":
            self.invariants.looks_for_due(owner)
        self.invariants.nobody_waits_too_long()
        return result

    def lock_wait_s(self, owner: Owner, name: str, arguments: Sequence[Any]) -> float:
        """See `row_locks`."""
        if name == "leases.expire" and self.fails_expire and self._is_in_trouble:
            return TIMEOUT_S
        return self.locks.wait_s(owner, name, arguments, TIMEOUT_S)

    def refuses_link(self, link: Delivery) -> bool:
        """The tenant's links lead nowhere."""
        if link.link != JUNK:
            return False
        self.invariants.on_link_refused(link)
        self.scheduler.wait(REFUSAL_S, self.running_process())
        return True

    def restart(self, dead: Process) -> None:
        """Start another process in place of a dead one, after as long in both lives."""
        self.processes.remove(dead)
        self.scheduler.after(RESTART_S, self._start_process)

    def running_process(self) -> Owner:
        """Whose greenlet runs."""
        running = getcurrent()
        owners: list[Owner] = [p for p in self.processes if running in p.greenlets]
        return owners[0]

    def _unrest(self) -> str | None:
        """The tenant's links are given up after half a day: a minute of that is enough to see."""
        untold = self.ledger.tables.undelivered
        is_over = self.scheduler.now > ATTACK_S + LINKS_WATCHED_S
        if is_over and all(self.ledger.tables.calls[key].org_id == HOSTILE for key in untold):
            self.ledger.tables.undelivered = {}
        try:
            return super()._unrest()
        finally:
            self.ledger.tables.undelivered = untold

    def _kill_one(self) -> None:
        if len(self.processes) < 2:
            return  # Nobody would be left to recover what it had.
        victim: Process = self.processes[0]
        if self._has_tenant:
            # At the worst moment: none of its calls that run can be taken from the dead.
            for call in self.ledger.tables.calls.values():
                if call.org_id == HOSTILE and call.state is CallState.RUNNING:
                    self.locks.hold(call.key, LOCK_S[-1])
        self.deaths[victim.name] = self.scheduler.now
        self.scheduler.kill(victim, "by plan")

    def _set_budgets(self) -> None:
        for org_id in OTHERS:
            self.ledger.set_budget(org_id, "org", Window.DAY, RICH_NANO_USD)
        self.ledger.set_budget(HOSTILE, "org", Window.DAY, 40 * HOLDS[0])

    def _end_trouble(self) -> None:
        super()._end_trouble()
        self.locks.release_all()


class _Pipeline(ExternalActor):
    """One of the others: it submits a call, waits for its end, and submits the next."""

    def __init__(self, world: HostileWorld, name: str, org_id: str, links: float) -> None:
        super().__init__(world, name)
        self._hostile_world = world
        self._org_id = org_id
        self._links = links

    def work(self) -> None:
        """Until the attack is over."""
        scheduler, n = self.world.scheduler, 0
        while scheduler.now < ATTACK_S:
            n += 1
            request = a_request_of(self._org_id, "answer", f"question {self.name} {n}", 100)
            new = self.submits.prepare(request, link=LINK if n * self._links % 1 < 0.5 else None)
            (answer,) = self.line.submit([new])
            is_lost = n % 7 == 0
            self._hostile_world.invariants.begins(new, answer.key, is_lost=is_lost)
            self._hostile_world.invariants.on_accepted([new], [answer])
            if not is_lost:  # Else a sweep finds out.
                self.publish([answer])
            while self.world.ledger.tables.calls[answer.key].state.is_open:
                scheduler.wait(0.1, self)
            if n % 3 == 0:
                self._ask_again(new)

    def _ask_again(self, asked: NewSubmission) -> None:
        """Give a link for a call that has ended, which nobody tells but the loop that delivers."""
        new = replace(actors.again(asked, self.world), link=LINK)
        self._hostile_world.invariants.asks_again(new)
        (answer,) = self.line.submit([new])
        self._hostile_world.invariants.on_accepted([new], [answer])


@dataclass(frozen=True, slots=True)
class Lived:
    """One life under attack, beside the same without."""

    seed: int
    done: int
    done_alone: int
    """Calls of the others that ended in the time of the attack, without it."""
    counts: Mapping[str, int]
    trace_hash: str
    rule: str | None = None
    report: str = ""


def live(seed: int) -> Lived:
    """Live a life twice; the first broken rule ends it."""
    alone = HostileWorld(seed, has_tenant=False)
    world = HostileWorld(seed)
    rule, why = None, ""
    try:
        with ExitStack() as smaller:
            for module, name, value in BATCHES:
                smaller.enter_context(patch.object(module, name, value))
            alone.run()
            world.run()
        done, before = world.invariants.done, alone.invariants.done
        said = f"{done} calls of the others ended in {ATTACK_S} s, and {before} without the tenant"
        world.invariants.check("others_keep_their_share", done >= SHARE_MIN * before, said)
    except Violation as violation:
        rule, why = violation.rule, str(violation)
    finally:
        alone.scheduler.close()
        world.scheduler.close()
    lived = world if alone.is_over else alone
    report = _report(seed, why, lived.scheduler, 60) if rule else ""
    return Lived(
        seed,
        world.invariants.done,
        alone.invariants.done,
        world.scheduler.counts,
        world.scheduler.trace_hash(),
        rule,
        report,
    )
