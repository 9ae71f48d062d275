"""Who acts on callgate from outside: pipelines that submit, operators that interfere, and the weather."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from callgate.domain.budgets import Window
from callgate.domain.call_order import Lane
from callgate.domain.calls import CallState, CallView
from callgate.domain.errors import IdempotencyMismatch, OrganisationFrozen, Unavailable
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.limits import Measure
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import By, CallFilter, EndReason
from callgate.domain.requests import LLMRequest, Message, OnBudget
from callgate.domain.unknown import HandOutcome, SettleByHand, UnknownFilter
from callgate.services.acceptance import require_stored
from callgate.services.dead_letters import DeadLetterService
from callgate.services.submit import SubmitService
from tests.simulation.broker import FaultyBroker
from tests.simulation.faults import PROVIDER_OUTAGE
from tests.simulation.faulty_ledger import FaultyLedger
from tests.simulation.provider import KILLER
from tests.simulation.provider_limits import LARGE_SHARE, Declared, Plan
from tests.simulation.scheduler import Owner

if TYPE_CHECKING:
    from tests.simulation.world import World

ORGS = ("acme", "acme", "nova", "zeta")
CALL_TYPES = ("extract", "extract", "chat", "draft")
MODELS = ("sim-1", "sim-1", "sim-1", "sim-2")
PROMPTS = ("alpha", "beta", "gamma " * 30, "delta")
SCHEMA = '{"type":"object","required":["org","attempt"]}'
LINK = '{"link":{"task":"store"},"link_error":{"task":"store"}}'
TRIES_MAX = 6
LARGE = (Measure.INPUT_TOKENS, Measure.OUTPUT_TOKENS, Measure.TOKENS)


class ExternalActor(Owner):
    """A process that submits or operates: its own lines to ledger and broker, its own death."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        self.world = world
        self.line = FaultyLedger(world, self)
        self.queue = FaultyBroker(world, self)
        self.submits = SubmitService(
            ledger=self.line,
            queue=self.queue,
            estimator=world.estimator,
            costs=world.costs,
            validator=world.validator,
            catalogue=world.catalogue,
            now=world.scheduler.time,
        )
        # It has those of the port's methods that an actor uses.
        operations = cast(OperationsPort, self.line)
        self.dead_letters = DeadLetterService(self.line, operations, self.submits)

    def publish(self, answers: list[Submitted]) -> None:
        """Wake a worker for what was created; without a broker a sweep will."""
        try:
            for lane in (Lane.EXPRESS, Lane.CALL):
                if keys := [answer.key for answer in answers if answer.lane is lane]:
                    self.queue.publish_calls(keys, lane)
        except Unavailable:
            self.world.scheduler.counts["accepted but not published"] += 1


def submit(world: World, name: str) -> None:
    """A pipeline submits one request, repeatedly, until it is accepted or the pipeline gives up."""
    rng = world.rng
    pipeline = ExternalActor(world, name)
    prepared = pipeline.submits.prepare(
        a_request(world),
        link=LINK if rng.random() < 0.6 else None,
        force=rng.random() < 0.15,
        idempotency_key=rng.choice(("k1", "k2")) if rng.random() < 0.15 else None,
        options=world.options.one(world.scheduler.time()),
    )
    copies = [prepared] + [again(prepared, world) for _ in range(rng.choice((0, 0, 0, 2)))]

    def submit_until_accepted() -> None:
        for _ in range(rng.randint(1, TRIES_MAX)):
            try:
                answers = pipeline.line.submit(copies)
                require_stored(copies, answers)
            except IdempotencyMismatch:
                world.invariants.on_mismatch(prepared)
                return
            except (Unavailable, OrganisationFrozen):
                world.scheduler.wait(rng.uniform(0, 10), pipeline)
                continue
            world.invariants.on_accepted(copies, answers)
            pipeline.publish(answers)
            if not are_busy(answers):
                return
            world.scheduler.wait(rng.uniform(0, 10), pipeline)
        world.scheduler.counts["submission given up"] += 1

    world.scheduler.spawn(pipeline, submit_until_accepted)


def submit_one(world: World, name: str, org_id: str, prompt: str) -> None:
    """A pipeline submits one call that nobody else submits, and nothing goes wrong with it."""
    pipeline = ExternalActor(world, name)
    new = pipeline.submits.prepare(a_request_of(org_id, "answer", prompt, 100))

    def submit_once() -> None:
        answers = pipeline.line.submit([new])
        world.invariants.on_accepted([new], answers)
        pipeline.publish(answers)

    world.scheduler.spawn(pipeline, submit_once)


def flood(world: World, plan: Plan) -> None:
    """One organisation floods a key that has limits; the others come with a single call, and one call is large."""
    rng, at_s = world.rng, world.rng.uniform(0, 20)
    after, model = world.scheduler.after, "sim-1"
    is_unknown = plan.declared is Declared.NOT and not plan.is_named
    number, within_s = (40, 0.5) if is_unknown else (rng.choice((8, 12, 16)), 3)
    for n in range(number):
        request = a_request_of("acme", "chat", f"flood {n}", 100, OnBudget.WAIT, model)
        after(at_s + rng.uniform(0, within_s), partial(submit_accepted, world, f"f{n}", request))
    for n, org_id in enumerate(("nova", "zeta", "nova")):
        request = a_request_of(org_id, "chat", f"single {n}", 100, OnBudget.WAIT, model)
        after(at_s + rng.uniform(2, 40), partial(submit_accepted, world, f"l{n}", request))
    most = min((x.amount for x in plan.known if x.measure in LARGE), default=4_000)
    for n in range(rng.choice((0, 1, 2))):
        more = int(most * LARGE_SHARE)
        output = more if any(x.measure is Measure.OUTPUT_TOKENS for x in plan.known) else 100
        prompt = f"large {n} {'x' * (more if output == 100 else 1)}"
        org_id = rng.choice(("acme", "nova"))
        request = a_request_of(org_id, "chat", prompt, output, OnBudget.WAIT, model)
        after(at_s + rng.uniform(0, 10), partial(submit_accepted, world, f"g{n}", request))


def submit_accepted(world: World, name: str, request: LLMRequest) -> None:
    """A pipeline submits one call, until it is accepted."""
    pipeline = ExternalActor(world, name)
    options = world.options.one(world.scheduler.time())
    new = pipeline.submits.prepare(request, options=options)

    def submit_until_accepted() -> None:
        for _ in range(TRIES_MAX):
            try:
                answers = pipeline.line.submit([new])
            except (Unavailable, OrganisationFrozen):
                world.scheduler.wait(world.rng.uniform(0, 10), pipeline)
                continue
            world.invariants.on_accepted([new], answers)
            pipeline.publish(answers)
            if not are_busy(answers):
                return
            world.scheduler.wait(world.rng.uniform(0, 10), pipeline)

    world.scheduler.spawn(pipeline, submit_until_accepted)


def again(prepared: NewSubmission, world: World) -> NewSubmission:
    """The same request once more, as somebody else's submission."""
    copy = replace(prepared, submission_id=uuid4(), idempotency_key=None)
    return world.options.varied(copy, world.scheduler.time())


def are_busy(answers: list[Submitted]) -> bool:
    """True if an organisation had no room for one of its calls."""
    return any(answer.outcome is SubmitOutcome.BUSY for answer in answers)


def a_request(world: World) -> LLMRequest:
    """One of a few requests, so that many of them are the same; orgs ask the same things."""
    rng = world.rng
    prompt = KILLER if rng.random() < world.killers else rng.choice(PROMPTS)
    on_budget = rng.choice(list(OnBudget))
    org_id, call_type, model = rng.choice(ORGS), rng.choice(CALL_TYPES), rng.choice(MODELS)
    return a_request_of(org_id, call_type, prompt, None, on_budget, model)


def a_request_of(
    org_id: str,
    call_type: str,
    prompt: str,
    max_output_tokens: int | None,
    on_budget: OnBudget = OnBudget.REJECT,
    model: str = "sim-1",
) -> LLMRequest:
    """A request; what it extracts follows a schema."""
    return LLMRequest(
        org_id=org_id,
        call_type=call_type,
        provider="sim",
        model=model,
        messages=(Message(role="user", content=prompt),),
        max_output_tokens=max_output_tokens,
        on_budget=on_budget,
        response_schema=SCHEMA if call_type == "extract" else None,
    )


def operate(world: World, name: str) -> None:
    """An operator does one thing: cancel, redrive, discard, change a limit, open or close a breaker, settle by hand."""
    things: list[Callable[[ExternalActor], None]] = [
        *(_cancel, _redrive, _redrive, _discard, _set_limit, _set_breaker, _settle_by_hand)
    ]
    _have_done(world, name, world.rng.choice(things))


def settle_bills(world: World, name: str) -> None:
    """An operator settles bills by hand, and does nothing else."""
    _have_done(world, name, _settle_by_hand)


def redrive(world: World, name: str) -> None:
    """An operator redrives dead letters, and does nothing else."""
    _have_done(world, name, _redrive)


def _have_done(world: World, name: str, thing: Callable[[ExternalActor], None]) -> None:
    operator = ExternalActor(world, name)

    def operate_once() -> None:
        try:
            thing(operator)
        except (Unavailable, OrganisationFrozen):
            world.scheduler.counts["operator in vain"] += 1

    world.scheduler.spawn(operator, operate_once)


def _some(operator: ExternalActor, state: CallState) -> list[CallView]:
    """Calls in a state; by the time the operator has thought about them they may have moved on."""
    views = operator.line.calls(CallFilter(state=state), limit=10)
    operator.world.scheduler.wait(operator.world.rng.uniform(0, 5), operator)
    return [view for view in views if operator.world.rng.random() < 0.7]


def _cancel(operator: ExternalActor) -> None:
    state = operator.world.rng.choice((CallState.QUEUED, CallState.WAITING))
    keys = [view.key for view in _some(operator, state)]
    ended = operator.line.end(keys, code=EndReason.CANCELLED, message="no need")
    operator.world.scheduler.counts["call cancelled"] += len(ended)


def _discard(operator: ExternalActor) -> None:
    keys = [view.key for view in _some(operator, CallState.DEAD)]
    ended = operator.line.end(keys, code=EndReason.DISCARDED, message="no hope")
    operator.world.scheduler.counts["dead letter discarded"] += len(ended)


def _redrive(operator: ExternalActor) -> None:
    keys = [view.key for view in _some(operator, CallState.DEAD)]
    if keys:
        submitted, _ = operator.dead_letters.redrive(keys)
        operator.world.scheduler.counts["dead letter redriven"] += len(submitted)


def _set_limit(operator: ExternalActor) -> None:
    world = operator.world
    scope = world.rng.choice(("org", "call_type:extract"))
    window = world.rng.choice(list(Window))
    operator.line.set_budget(world.rng.choice(ORGS), scope, window, world.a_limit())
    world.scheduler.counts["limit changed"] += 1


def _set_breaker(operator: ExternalActor) -> None:
    """Open or close one for a while; who opened it closes it again."""
    world = operator.world
    names = "sim", world.rng.choice(MODELS), world.rng.choice(("", *world.own_keys))
    key = (*names, world.rng.choice(("", "", world.rng.choice(ORGS))))
    by = By(operator.name, "maintenance")
    for is_open in world.rng.choice(((False,), (True, False))):
        while not _has_set(operator, key, is_open, by):
            world.scheduler.wait(1, operator)
        world.scheduler.counts["breaker changed by hand"] += 1
        world.scheduler.wait(world.rng.uniform(1, 60), operator)


def _settle_by_hand(operator: ExternalActor) -> None:
    """Enter what the provider says of some unknown bills; it may be wrong, and late."""
    world = operator.world
    bills = operator.line.unknown_bills(UnknownFilter(), limit=10)
    world.scheduler.wait(world.rng.uniform(0, world.rng.choice((5, 120))), operator)
    settles = [
        SettleByHand(
            bill.attempt_id,
            bill.posted_nano_usd,
            world.rng.choice((0, bill.hold_nano_usd // 2, bill.hold_nano_usd)),
        )
        for bill in bills
        if world.rng.random() < 0.7
    ]
    by = By(operator.name, "the invoice")
    for answer in operator.line.settle_by_hand(settles, by=by):
        world.scheduler.counts["settled by hand"] += answer.outcome is HandOutcome.SETTLED


def _has_set(
    operator: ExternalActor, key: tuple[str, str, str, str], is_open: bool, by: By
) -> bool:
    try:
        operator.line.set_breaker(*key, is_open=is_open, by=by)
    except Unavailable:
        return False
    return True


def bad_weather(world: World, *, until_s: float) -> None:
    """Plan outages of the provider, the ledger and the broker, and wipes of the broker."""
    rng, after = world.rng, world.scheduler.after
    for _ in range(rng.choice((0, 0, 1, 2))):
        length_s = rng.choice((2, 4, 10, 30, 60))
        after(rng.uniform(0, until_s), partial(world.ledger_goes_away, length_s))
    for _ in range(rng.choice((0, 0, 1, 2))):
        length_s = rng.choice((2, 10, 30))
        after(rng.uniform(0, until_s), partial(world.broker_goes_away, length_s))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        after(rng.uniform(0, until_s), world.broker.flush)
    for _ in range(2):
        if world.faults.one_of(PROVIDER_OUTAGE):
            after(rng.uniform(0, until_s / 2), world.provider_goes_away)
