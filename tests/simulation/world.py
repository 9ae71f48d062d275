"""
One seed: a ledger, a broker, a provider, some worker processes, pipelines and operators, and what goes wrong.

A world runs for a minute and a half of trouble. Then all faults stop, and it comes to rest: whatever was accepted
must end.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import UUID

import structlog

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.json_schema_validator import JsonSchemaValidator
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain import call_order
from callgate.domain.budgets import Window
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import CallTypePolicy, Catalogue, ProviderEntry
from callgate.domain.errors import OrganisationFrozen
from callgate.domain.ledger import RecordAnswer, RecordOutcome, ReserveCommand
from callgate.domain.limits import Declaration
from callgate.domain.price_entry import PriceEntry
from callgate.domain.requests import LLMRequest
from tests.simulation import actors
from tests.simulation.broker import Broker
from tests.simulation.conversations import Conversations
from tests.simulation.faults import MUCH_BY_HAND, MUCH_REDRIVEN, ONE_FAILS, PROVIDER_LIMITS, Faults
from tests.simulation.invariants import Invariants
from tests.simulation.outages import Outage
from tests.simulation.pause_plan import PausePlan
from tests.simulation.places import DeclaredPlaces
from tests.simulation.process import Process
from tests.simulation.provider import (
    INPUT_NANO_USD,
    KEY_REFUSED,
    OUTAGES,
    OUTPUT_NANO_USD,
    UNSTORABLE,
    Bill,
    Heard,
)
from tests.simulation.provider_limits import Counter, Declared, Plan
from tests.simulation.scheduler import Owner, Scheduler
from tests.simulation.skipping import next_due_s
from tests.simulation.slots import ShortSlots
from tests.simulation.submission_options import ANY, CLASS_AGE, DrawnOptions
from tests.simulation.trace_names import Names
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from callgate.domain.delivery import Delivery

TROUBLE_S = 90.0
RICH_NANO_USD = 10**13
REST_STEPS_MAX = 60_000
"""More steps than any world needed to come to rest."""
POLICY = CallTypePolicy(
    max_output_tokens_default=100,
    deadline_s=20,
    attempts_max=4,
    worker_losses_max=3,
    retry_wait_s=2,
    retry_after_max_s=30,
    unknown_attempts_max=2,
    unknown_wait_s=8,
    paid_failures_max=2,
    wait_max_s=240,
)
CATALOGUE = Catalogue(
    providers={"sim": ProviderEntry(needs_key=False)},
    default=POLICY,
    call_types={
        "extract": POLICY.model_copy(update={"paid_failures_max": 3}),
        "chat": POLICY.model_copy(update={"on_unknown": "dead", "wait_max_s": 3_600}),
        "draft": POLICY.model_copy(
            update={"unknown_attempts_max": 3, "paid_failures_max": 1, "wait_max_s": 20}
        ),
    },
    prices=tuple(
        PriceEntry(
            provider="sim",
            model=model,
            input_usd_per_million=Decimal(INPUT_NANO_USD) / 1_000,
            output_usd_per_million=Decimal(OUTPUT_NANO_USD) / 1_000,
            source="simulation",
            as_of=datetime(2026, 1, 1, tzinfo=UTC).date(),
        )
        for model in sorted(set(actors.MODELS))
    ),
)
COSTS, VALIDATOR, ESTIMATOR = (
    CostCalculator(CATALOGUE),
    JsonSchemaValidator(),
    TokenEstimator(CATALOGUE),
)
HOLDS = sorted(
    COSTS.worst_case(
        request := actors.a_request_of("acme", call_type, prompt, 100),
        ESTIMATOR.input_bound(request).tokens,
        datetime(2026, 11, 1, tzinfo=UTC),
    ).nano_usd
    for prompt in actors.PROMPTS
    for call_type in set(actors.CALL_TYPES)
)
"""What the requests hold: limits are made of these, so that some of them are met exactly."""


class World:
    """Everything there is in one seed."""

    catalogue, costs, validator, estimator = CATALOGUE, COSTS, VALIDATOR, ESTIMATOR
    slots = 5
    """Calls and sweeps a process takes at once."""

    def __init__(self, seed: int, *, faults: Mapping[str, float] = {}) -> None:
        """Build it; `faults` are on for sure, with these chances."""
        self.scheduler = Scheduler(seed, _shortly_before_some_midnight)
        self.rng = self.scheduler.rng
        self.faults = Faults.drawn(self.rng, faults)
        self.ledger = MemoryLedger(self.scheduler.time, self._new_id)
        self.names = Names(self.ledger.tables, self.scheduler.starts_at)
        self.bills: dict[UUID, Bill] = {}
        self.heard: dict[UUID, Heard] = {}
        """By attempt: what its process heard from the provider."""
        self.retry_after_s: dict[UUID, float] = {}
        """By attempt that was refused for its rate: how long the provider asked to be left alone."""
        self.own_keys = self.rng.choice(((), (), ("zeta",)))
        """Organisations with a key of their own."""
        self._provider_outages: list[Outage] = []
        has_limits = self.faults.one_of(PROVIDER_LIMITS) is not None
        self.limits = (
            Counter(self, Plan.drawn(self.rng, self.faults.chances)) if has_limits else None
        )
        """What the provider counts, if it has limits."""
        self.places = DeclaredPlaces.of(seed, self.faults.chances, has_limits=has_limits)
        self.short_slots = ShortSlots(self, seed)
        self.conversations = Conversations(self, seed)
        self.options = DrawnOptions.of(seed, self.faults.chances)
        self.pause_plan = PausePlan(self, seed)
        self.invariants = Invariants(self)
        self.broker = Broker(self)
        self.ledger_away_until = 0.0
        self.killers = self.rng.choice((0, 0, 0.1))
        """How many prompts no worker survives."""
        self.default_limit = self.rng.choice((None, self.a_limit()))
        self.troubles: dict[tuple[str, CallKey | None], float] = {}
        """By process, and call if it was about one: when it last paused, or failed alone to reach the ledger."""
        self._ids = 0
        self._is_in_trouble = True
        self._set_budgets()
        if self.limits is not None:
            self._declare_limits(self.limits.plan)
        elif self.places.rules() or self.options.open_calls_max < ANY:
            self.ledger.flow.publish("before", self.declaration())
        self.processes = [Process(self, f"w{n}") for n in range(self.rng.randint(1, 3))]
        self._worker_count = len(self.processes)

    def run(self) -> None:
        """
        Live through the trouble, then come to rest.

        Raises:
            Violation: An invariant was broken.
        """
        rng, after = self.rng, self.scheduler.after
        self.scheduler.counts["places declared"] += bool(self.places.rules())
        if self.limits is not None:
            actors.flood(self, self.limits.plan)
        self.short_slots.flood()
        more = 10 if self.faults.chances.get("provider outage") else 0
        for n in range(4 if self.limits is not None else rng.randint(5, 16) + more):
            after(rng.uniform(0, TROUBLE_S), partial(actors.submit, self, f"p{n}"))
        for n in range(rng.randint(0, 5)):
            after(rng.uniform(10, TROUBLE_S), partial(actors.operate, self, f"o{n}"))
        for kind, thing in ((MUCH_BY_HAND, actors.settle_bills), (MUCH_REDRIVEN, actors.redrive)):
            for n in range(round(15 * self.faults.chances.get(kind, 0))):
                after(rng.uniform(10, TROUBLE_S), partial(thing, self, f"b{n}"))
        if self.faults.chances.get(ONE_FAILS):
            self.fail_provider(Outage(KEY_REFUSED, 2 * TROUBLE_S, org_id="acme"))
        self.conversations.plan()
        self.pause_plan.plan()
        actors.bad_weather(self, until_s=TROUBLE_S)
        after(TROUBLE_S, self._end_trouble)
        with patch.object(call_order, "CLASS_AGE", CLASS_AGE):
            self.scheduler.run(is_over=self._is_at_rest, skip_to=self._next_due_s)
        if not self._is_at_rest():
            raise Violation("every_call_ends", f"nothing is planned, and {self._unrest()}")
        self.invariants.at_rest()
        self.conversations.at_rest()

    # What others ask of the world.

    def declaration(self) -> Declaration:
        """What each worker publishes."""
        known = self.limits.plan.declaration() if self.limits else Declaration()
        return replace(
            known, concurrency=self.places.rules(), open_calls_max=self.options.open_calls_max
        )

    def execute(
        self, owner: Owner, name: str, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """A statement takes effect: the one place where the ledger changes."""
        if name == "record" and arguments[0][0].provider_request_id == UNSTORABLE:
            self.scheduler.tell(owner.name, f"record {self.named(arguments[0][0])} -> unstorable")
            return [RecordOutcome.UNSTORABLE]
        try:
            result = attrgetter(name)(self.ledger)(*arguments, **options)
        except OrganisationFrozen as refusal:
            result = refusal
        told, is_idle = self.names.told(name, arguments, result)
        self.scheduler.tell(owner.name, told, idle=is_idle)
        self.invariants.pauses.hear(name, arguments, options)
        self.invariants.after(name, arguments, options, result)
        return result

    def lock_wait_s(self, owner: Owner, name: str, arguments: Sequence[Any]) -> float:
        """For how long a statement waits for rows that somebody holds; see `row_locks`."""
        return 0.0

    def refuses_link(self, link: Delivery) -> bool:
        """True if the broker takes no message for where this link leads."""
        return False

    def is_ledger_away(self) -> bool:
        """True during an outage."""
        return self.scheduler.now < self.ledger_away_until

    def ledger_goes_away(self, length_s: float) -> None:
        """Begin an outage for everybody."""
        self.scheduler.tell("ledger", f"AWAY for {length_s} s")
        self.scheduler.counts["ledger away"] += 1
        self.ledger_away_until = max(self.ledger_away_until, self.scheduler.now + length_s)

    def provider_goes_away(self) -> None:
        """Begin an outage of the provider for some models and keys; it outlasts all other trouble."""
        rng = self.rng
        kind, length_s = rng.choice(OUTAGES), rng.choice((5, 20, 60, 200, 900))
        models = rng.choice((("sim-1",), ("sim-1", "sim-2")))
        keys = rng.choice((("", *self.own_keys), ("",), self.own_keys or ("",)))
        self.scheduler.counts["provider outage"] += 1
        self.scheduler.tell("provider", f"AWAY for {length_s} s: {kind} for {models}, {keys}")
        self.fail_provider(Outage(kind, self.scheduler.now + length_s, models, keys))

    def fail_provider(self, outage: Outage) -> None:
        """Have the provider fail all requests of some kind."""
        self._provider_outages.append(outage)

    def outage_of(self, request: LLMRequest) -> str | None:
        """What the provider does to every such request now."""
        credential = request.org_id if request.org_id in self.own_keys else ""
        for outage in self._provider_outages:
            is_hit = request.model in outage.models and credential in outage.credentials
            is_hit = is_hit and outage.org_id in (None, request.org_id)
            if is_hit and self.scheduler.now < outage.until:
                return outage.kind
        return None

    def broker_goes_away(self, length_s: float) -> None:
        """Begin an outage of the broker."""
        self.scheduler.tell("broker", f"AWAY for {length_s} s")
        self.scheduler.counts["broker away"] += 1
        self.broker.away_until = self.scheduler.now + length_s

    def troubled(self, owner: Owner, batch: Sequence[ReserveCommand | RecordAnswer] = ()) -> None:
        """A process pauses, or fails alone to reach the ledger: its attempts may become unknown."""
        at = max(self.scheduler.now, owner.paused_until)
        keys = [row.ref.key if isinstance(row, RecordAnswer) else row.key for row in batch]
        for key in keys or (None,):
            self.troubles[owner.name, key] = at

    def consumers(self) -> list[Process]:
        """Processes that take messages."""
        return [process for process in self.processes if process.has_room]

    def restart(self, dead: Process) -> None:
        """Start another process in place of a dead one, soon."""
        self.processes.remove(dead)
        delay_s = self.rng.uniform(0.1, 20)
        self.scheduler.after(delay_s, self._start_process)

    def a_limit(self) -> int:
        """A limit that fits a few calls, often exactly, or all but one nano-USD."""
        fits = self.rng.choices(HOLDS, k=self.rng.choice((1, 2, 3, 5, 8, 13)))
        limit = sum(fits) + self.rng.choice((0, 0, -1, 1, 500_000))
        return RICH_NANO_USD if self.limits or self.short_slots.are_short else limit

    def named(self, thing: object) -> str:
        """See `Names.named`."""
        return self.names.named(thing)

    # Inside.

    def _new_id(self, at: datetime) -> UUID:
        self._ids += 1
        return UUID(int=self._ids << 64)

    def _set_budgets(self) -> None:
        for org_id in sorted(set(actors.ORGS)):
            names = [("org", w) for w in Window] + [("call_type:extract", w) for w in Window]
            chosen = [name for name in names if self.rng.random() < 0.5]
            if self.default_limit is None:
                chosen = chosen or names[:1]
            for scope, window in chosen:
                timezone = self.rng.choice(("UTC", "UTC", "Europe/Berlin"))
                self.ledger.set_budget(org_id, scope, window, self.a_limit(), timezone)

    def _declare_limits(self, plan: Plan) -> None:
        """Workers ran before this life began. Those that start in it declare the same."""
        self.scheduler.counts["provider limits"] += 1
        self.faults.chances.pop("rate limited", None)
        self.slots = 20 if plan.declared is Declared.NOT else self.rng.choice((5, 20))
        self.ledger.flow.publish("before", self.declaration())

    def _start_process(self) -> None:
        self._worker_count += 1
        self.scheduler.counts["process started"] += 1
        self.processes.append(Process(self, f"w{self._worker_count}"))
        self.broker.pump()

    def _end_trouble(self) -> None:
        self.scheduler.tell("world", "ALL FAULTS STOP")
        self.faults.end()
        self.killers = 0
        self.pause_plan.next_shift()
        # An outage of the ledger runs to its end: what it froze is executed then, and nobody may be answered before.
        self.broker.away_until = 0.0
        self._is_in_trouble = False
        self._steps_at_rest_at_last = self.scheduler.steps + REST_STEPS_MAX

    def _is_at_rest(self) -> bool:
        if self._is_in_trouble or self.scheduler.busy:
            return False
        unrest = self._unrest()
        if unrest and self.scheduler.steps > self._steps_at_rest_at_last:
            raise Violation(
                "every_call_ends", f"{REST_STEPS_MAX} steps after the last fault {unrest}"
            )
        return unrest is None

    def _unrest(self) -> str | None:
        tables = self.ledger.tables
        for call in tables.calls.values():
            if call.due_at is not None or call.state.is_open:
                due_at = self.names.seconds(call.due_at)
                return f"{self.named(call.key)} is {call.state}, due at {due_at}"
        for key in tables.undelivered:
            return f"somebody is still to be told of {self.named(key)}"
        for attempt in tables.attempts.values():
            if attempt.late_due_at is not None:
                return f"a late answer of {self.named(attempt.attempt_id)} is not settled"
        return None

    def _next_due_s(self) -> float | None:
        """When the ledger next has anything to do, if it has nothing to do now."""
        return next_due_s(self)


def _shortly_before_some_midnight(rng: random.Random) -> datetime:
    """Half of the worlds see a day end, some a month."""
    midnight = rng.choice([datetime(2026, 11, 3, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)])
    return midnight - timedelta(seconds=rng.uniform(0, 2 * TROUBLE_S))


def quiet() -> None:
    """Services log every fault they live through; nobody reads that here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
