"""
A tenant that wants nothing but to stop the others: what they lose by it, in virtual seconds.

A life is lived twice, with the tenant and without it. The others do the same in both: each of their pipelines submits a
call, waits until it has ended, and submits the next. So what they get done in a second is their rate, and the tenant's
harm is what they get done less. Nothing else goes wrong, except that a worker may die; what that costs is not the
tenant's doing, unless it makes it dearer.

Three organisations share the workers. Whatever one of them does, the other two keep two thirds of what they had.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import UUID

from greenlet import getcurrent

from callgate.adapters.memory import delivery as memory_delivery
from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.domain import errors
from callgate.domain.answers import Answer, Finding
from callgate.domain.budgets import Window
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.ledger import NewSubmission, Reserve, Settle, SettleOutcome, SubmitOutcome
from callgate.domain.requests import LLMRequest, OnBudget
from callgate.services import delivery
from tests.simulation import actors
from tests.simulation.actors import LINK, ExternalActor, a_request_of
from tests.simulation.breakers import Breakers
from tests.simulation.faulty_ledger import TIMEOUT_S
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.process import Process
from tests.simulation.row_locks import RowLocks
from tests.simulation.run import _report
from tests.simulation.scheduler import Owner
from tests.simulation.wakeup_rule import Headroom
from tests.simulation.world import HOLDS, VALIDATOR, Outage, World

if TYPE_CHECKING:
    from callgate.domain.delivery import Delivery

HOSTILE = "evil"
OTHERS = ("acme", "nova")
PIPELINES = 2
"""Of each of the others."""
ATTACK_S = 40.0
END_S_MAX = 20.0
"""From submission to end, of each call of the others that died with no worker."""
DIED_S_MAX = 25.0
"""The same of one that did: a lease runs out, and it is made again after its wait."""
UNSETTLED_S_MAX = 40.0
"""The same of one whose answer a dying worker was to settle: it is found when its deadline and the grace are over."""
TOLD_S_MAX = 15.0
"""From the end of a call of the others to its link at the broker, though whoever was to publish it may have died."""
SHARE_MIN = 1 / 2
"""Of what the others get done without the tenant, in one life: these are few calls. `test_hostile` has the whole."""
RICH_NANO_USD = 10**15
BOMB = '{"type":"object","title":"never checked to the end"}'
BOMB_BYTES = b"never checked to the end"
CHECK_S = 1.0
"""After this long a check is given up."""
JUNK = LINK.replace("store", "junk")
LINK_TRIES_MAX, LINK_WAIT_S = 25, 5.0
"""Tries in all, and what a failing link waits at least before its second; each wait is twice as long as the last."""
RESTART_S = 2.0
REFUSAL_S = 1.0
"""How long the broker takes to refuse a message."""
LINKS_WATCHED_S = 40.0
LOCK_S = (0.5, 5.0, 40.0)
LOCKED_MAX = 60
FLOOD = 6
BATCHES = ((delivery, "BATCH_MAX", 10), (memory_delivery, "ORG_LINKS_MAX", 5))
"""Smaller than they are, as the tenant's crowds are."""


class Validator:
    """Checks like the real one, and gives up on a schema that takes too long."""

    def __init__(self, world: HostileWorld) -> None:
        self._world = world

    def check_schema(self, schema: str) -> str | None:
        """See `OutputValidatorPort`."""
        return VALIDATOR.check_schema(schema)

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[Finding]:
        """See `OutputValidatorPort`."""
        return [self._check(answer) for answer in answers]

    def _check(self, answer: Answer) -> Finding:
        if answer.schema == BOMB:
            return give_up_check(self._world, self._world.running_process())
        (found,) = VALIDATOR.check_all([answer], CHECK_S)
        return found


def give_up_check(world: HostileWorld, process: Owner) -> Finding:
    """A child is given the check, and killed; its parent waits, and goes on."""
    world.scheduler.counts["check given up"] += 1
    world.scheduler.wait(CHECK_S, process)
    return errors.SchemaTooCostly("it takes too long to check")


class OthersHeadroom(Headroom):
    """Who is woken among the others; the tenant's calls may be held, and are woken when they are free."""

    def _wanting(self) -> list[CallRow]:
        return [call for call in super()._wanting() if call.org_id != HOSTILE]


class OthersBreakers(Breakers):
    """The breakers of the others; the tenant has a key, and so a breaker, of its own."""

    def admitted(self, call: CallRow, row: AttemptRow, now: datetime) -> None:
        """See `Breakers`."""
        if call.org_id != HOSTILE:
            super().admitted(call, row, now)

    def refused(self, call: CallRow, wanted: Reserve, now: datetime) -> None:
        """See `Breakers`."""
        if call.org_id != HOSTILE:
            super().refused(call, wanted, now)

    def _settled(
        self, batch: Sequence[Settle], outcomes: Sequence[SettleOutcome], now: datetime
    ) -> None:
        calls = self._tables.calls
        pairs = zip(batch, outcomes, strict=True)
        others = [pair for pair in pairs if calls[pair[0].ref.key].org_id != HOSTILE]
        super()._settled([s for s, _ in others], [o for _, o in others], now)


class TenantInvariants(Invariants):
    """What is promised to the others, besides everything else."""

    def __init__(self, world: HostileWorld) -> None:
        super().__init__(world)
        self._headroom, self._breakers = OthersHeadroom(world), OthersBreakers(world)
        self._hostile_world = world
        self._asked: dict[CallKey, float] = {}
        """The calls of the others, and when they were submitted."""
        self._open: set[CallKey] = set()
        self._ended_at: dict[CallKey, float] = {}
        self._links: dict[CallKey, UUID] = {}
        """Submissions of the others that gave a link for a call that had not ended."""
        self._told_from: dict[UUID, float] = {}
        """Submissions of the others whose link is still to come, and since when it could."""
        self._refused_at: defaultdict[UUID, list[float]] = defaultdict(list)
        """When the broker refused which of the tenant's links."""

    @property
    def done(self) -> int:
        """How many calls of the others have ended while the attack lasted."""
        return sum(at <= ATTACK_S for at in self._ended_at.values())

    def begins(self, new: NewSubmission, key: CallKey) -> None:
        """One of the others has submitted a call."""
        self._asked[key] = self._hostile_world.scheduler.now
        self._open.add(key)
        if new.link is not None:
            self._links[key] = new.submission_id

    def asks_again(self, new: NewSubmission) -> None:
        """One of the others gives a link for a call that has ended."""
        self._told_from[new.submission_id] = self._hostile_world.scheduler.now

    def on_link_published(self, link: Delivery) -> None:
        """A submitter is told."""
        super().on_link_published(link)
        self._told_from.pop(link.submission_id, None)

    def on_link_refused(self, link: Delivery) -> None:
        """The broker takes no message for a link: it is tried again ever less often, and then no more."""
        refused_at, now = (
            self._refused_at[link.submission_id],
            self._hostile_world.scheduler.now,
        )
        refused_at.append(now)
        n, since_s = len(refused_at), now - refused_at[0]
        said = f"{self._hostile_world.named(link)} is tried {n} times in {since_s:.1f} s"
        self.check("a_failing_link_is_given_up", n <= LINK_TRIES_MAX, said)
        self._hostile_world.scheduler.counts["link refused"] += 1
        is_rare = since_s >= LINK_WAIT_S * (2.0 ** min(n - 1, 7) - 1)
        self.check("a_failing_link_is_tried_ever_less_often", is_rare, said)

    def is_owed(self, link: str | None) -> bool:
        """The tenant's links lead nowhere: they are owed a few tries."""
        return super().is_owed(link) and link != JUNK

    def nobody_waits_too_long(self) -> None:
        """No call of the others is open for too long, and no link of an ended one is still to come."""
        now, named = self._hostile_world.scheduler.now, self._hostile_world.named
        for key in sorted(self._open):
            call = self._tables.calls[key]
            if not call.state.is_open:
                self._open.remove(key)
                self._ended_at[key] = now
                if (submission_id := self._links.get(key)) and not self._told[submission_id]:
                    self._told_from[submission_id] = now
                self._ended(key)
                continue
            waits_s = now - self._asked[key]
            said = f"{named(key)} of {call.org_id} is {call.state} after {waits_s:.1f} s"
            self.check("others_end_in_time", waits_s <= self._bound_s(key), said)
        for submission_id, since in self._told_from.items():
            waits_s = now - since
            said = f"{named(submission_id)} is not told after {waits_s:.1f} s"
            self.check("others_are_told_in_time", waits_s <= TOLD_S_MAX, said)

    def at_rest(self) -> None:
        """Besides everything else: an answer that nobody could check was paid, and is posted as that."""
        super().at_rest()
        for attempt_id, row in self._tables.attempts.items():
            request, bill = self._tables.calls[row.key].request, self._world.bills.get(attempt_id)
            if bill is not None and request is not None and BOMB_BYTES in request:
                said = f"{self._hostile_world.named(attempt_id)} posts {row.posted_nano_usd} of {bill.nano_usd}"
                is_paid = (
                    row.posted_nano_usd == bill.nano_usd
                    or row.process in self._hostile_world.deaths
                )
                self.check("a_check_given_up_posts_its_usage", is_paid, said)

    def _bound_s(self, key: CallKey) -> float:
        if any(self._died_with_worker(row) for row in self._tables.attempts_of[key]):
            return DIED_S_MAX
        deaths = self._hostile_world.deaths.values()
        return UNSETTLED_S_MAX if any(self._asked[key] <= at for at in deaths) else END_S_MAX

    def _ended(self, key: CallKey) -> None:
        """It succeeded; but for what died with a worker, it was sent once and posted at its usage."""
        call, rows = self._tables.calls[key], self._tables.attempts_of[key]
        name = f"{self._hostile_world.named(key)} of {call.org_id}"
        said = f"{name} is {call.state}: {call.error}"
        self.check("others_succeed", call.state is CallState.SUCCEEDED, said)
        alive = [row for row in rows if not self._died_with_worker(row)]
        said = f"{name} has {len(rows)} attempts"
        self.check("others_are_sent_once", len(alive) == 1, said)
        for row in alive:
            said = f"{name} posts {row.posted_nano_usd} of {row.hold_nano_usd}: {row.status}"
            is_usage = row.status is AttemptStatus.SUCCEEDED and row.usage is not None
            self.check("others_post_their_usage", is_usage, said)

    def _died_with_worker(self, row: AttemptRow) -> bool:
        is_open = row.status in (AttemptStatus.DISPATCHED, AttemptStatus.UNKNOWN)
        return row.process in self._hostile_world.deaths and is_open


class HostileWorld(World):
    """Two organisations that work, one that attacks, and no other faults."""

    def __init__(self, seed: int, *, has_tenant: bool = True) -> None:
        self.validator = Validator(self)
        self.is_over = False
        self.deaths: dict[str, float] = {}
        """When the world killed which worker."""
        self.plan = random.Random(seed)  # noqa: S311 - what happens in both lives alike
        super().__init__(seed)
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

    def play(self) -> None:
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
        untold = self.ledger.tables.untold
        is_over = self.scheduler.now > ATTACK_S + LINKS_WATCHED_S
        if is_over and all(self.ledger.tables.calls[key].org_id == HOSTILE for key in untold):
            self.ledger.tables.untold = {}
        try:
            return super()._unrest()
        finally:
            self.ledger.tables.untold = untold

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
        self.ledger.set_budget(HOSTILE, "org", Window.DAY, 40 * HOLDS[-1])

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
            (answer,) = self.submits.store([new])
            self._hostile_world.invariants.begins(new, answer.key)
            self._hostile_world.invariants.on_accepted([new], [answer])
            if n % 7:  # Else the message was lost, and a sweep finds out.
                self.publish([answer])
            while self.world.ledger.tables.calls[answer.key].state.is_open:
                scheduler.wait(0.1, self)
            if n % 3 == 0:
                self._ask_again(new)

    def _ask_again(self, asked: NewSubmission) -> None:
        """Give a link for a call that has ended, which nobody tells but the loop that delivers."""
        new = replace(actors._again(asked), link=LINK)
        self._hostile_world.invariants.asks_again(new)
        (answer,) = self.submits.store([new])
        self._hostile_world.invariants.on_accepted([new], [answer])


class Tenant(ExternalActor):
    """The hostile one. It has lines of its own to ledger and broker, and no shame."""

    def __init__(self, world: HostileWorld, name: str) -> None:
        super().__init__(world, name)
        self._hostile_world = world
        self._n = 0

    def again_and_again(self, attack: Callable[[Tenant], None]) -> Callable[[], None]:
        """Attack until it is over."""

        def act() -> None:
            rng, scheduler = self.world.rng, self.world.scheduler
            while scheduler.now < ATTACK_S:
                scheduler.wait(rng.uniform(1, 10), self)
                try:
                    attack(self)
                    scheduler.counts[f"attack: {attack.__name__}"] += 1
                except errors.Unavailable:
                    scheduler.counts["attack in vain"] += 1

        return act

    def submit(self, *batch: NewSubmission, quietly: bool = False) -> list[CallKey]:
        """Submit, and publish or leave it to a sweep."""
        answers = self.submits.store(list(batch))
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
    crowd = FLOOD if has_begun else 10 * FLOOD
    requests = [tenant.request(max_output_tokens=16_000) for _ in range(crowd)]
    batch = [tenant.submits.prepare(request, link=JUNK) for request in requests]
    tenant.submit(*batch, *map(actors._again, batch))


def set_bombs(tenant: Tenant) -> None:
    """Calls whose answers take too long to check."""
    requests = [tenant.request(response_schema=BOMB) for _ in range(2)]
    tenant.submit(*map(tenant.submits.prepare, requests))


def churn(tenant: Tenant) -> None:
    """Submit, cancel and submit again, while somebody claims."""
    batch = [tenant.submits.prepare(tenant.request(), force=True) for _ in range(3)]
    keys = tenant.submit(*batch)
    tenant.world.scheduler.wait(tenant.world.rng.uniform(0, 0.1), tenant)
    tenant.line.end(keys, code="cancelled", message="no need")
    tenant.submit(*(actors._again(new) for new in batch))


def fill_the_budget(tenant: Tenant) -> None:
    """Calls that wait for headroom, more and more of them."""
    requests = [tenant.request(on_budget=OnBudget.WAIT) for _ in range(3)]
    tenant.submit(*map(tenant.submits.prepare, requests))


ATTACKS = (lock_everything, lock_at_birth, flood_with_junk, set_bombs, churn, fill_the_budget)


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
            alone.play()
            world.play()
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
