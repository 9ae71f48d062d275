"""
Conversations with tools: each turn is one call, and who has its answer submits the next one.

Several submitters have the same conversation. As long as they get the same answers and find the same results, their
turns are the same calls. Nothing here asks `callgate.domain.identity`: a turn is its organisation and its messages.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from callgate.domain.calls import AttemptStatus, Bodies, CallKey, CallState
from callgate.domain.errors import OrganisationFrozen, Unavailable
from callgate.domain.messages import ReasoningBlock, Tool, ToolCall
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import LLMRequest, LLMResult, Message
from callgate.services.results import error_of, result_of
from tests.simulation.actors import TRIES_MAX, ExternalActor, again, are_busy
from tests.simulation.faults import CONVERSATIONS

if TYPE_CHECKING:
    from tests.simulation.world import World

CHANCE = 0.15
"""Of a life with conversations."""
BEGIN_S = 60.0
LOOKS_MAX, LOOK_S = 100, 4.0
"""How often a submitter looks for its answer, and how long it waits in between, at most."""
TOOLS = (Tool(name="look_up"),)
THINKING = "chat"
"""Calls of this type have reasoning that the next turn needs."""
CALL_ID = "call_0"
"""Many servers number their tool calls, so that an id says nothing about what is asked."""
RESULTS = ("42", "42", "42", "43")
"""What a tool finds: mostly the same for everybody."""

Turn = tuple[str, str]


class Conversations:
    """All conversations of one life, and what the provider answered in them."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        # Drawn apart, so that lives without conversations stay as they were.
        self._rng = random.Random(f"conversations of {seed}")  # noqa: S311
        is_on = self._rng.random() < world.faults.chances.pop(CONVERSATIONS, CHANCE)
        self._number = self._rng.choice((1, 2, 3)) if is_on and world.limits is None else 0
        self._calls: dict[Turn, UUID] = {}
        self._turns: dict[UUID, Turn] = {}
        self._forced: set[Turn] = set()
        """Turns that somebody wants to be made again."""
        self._answers: dict[UUID, ProviderReply] = {}
        """By attempt: good answers to requests with tools, as the provider sent them."""

    def plan(self) -> None:
        """Have them begin."""
        rng = self._rng
        for n in range(self._number):
            request = LLMRequest(
                org_id=rng.choice(("acme", "nova", "zeta")),
                call_type=rng.choice(("answer", THINKING)),
                provider="sim",
                model="sim-1",
                messages=(Message(role="user", content=f"{rng.choice((2, 3))} turns on {n}"),),
                tools=TOOLS,
            )
            for m in range(rng.choice((1, 3, 4))):
                delay_s = rng.uniform(0, BEGIN_S)
                begin = partial(self._begin, f"t{n}.{m}", request, rng.choice(RESULTS))
                self._world.scheduler.after(delay_s, partial(begin, rng.random() < 0.5))

    # A submitter.

    def _begin(self, name: str, request: LLMRequest, found: str, force: bool) -> None:
        pipeline = ExternalActor(self._world, name)

        def talk() -> None:
            turn: LLMRequest | None = request
            while turn is not None:
                key = self._submit(pipeline, turn, force=force and turn is request)
                result = None if key is None else self._result(pipeline, key)
                turn = None if result is None else self._next(turn, result, found)

        self._world.scheduler.spawn(pipeline, talk)

    def _submit(self, pipeline: ExternalActor, turn: LLMRequest, *, force: bool) -> CallKey | None:
        """Submit one turn until it is accepted; None if that takes too long."""
        rng, scheduler = self._world.rng, self._world.scheduler
        new = pipeline.submits.prepare(turn, force=force)
        copies = [new] + [again(new, self._world) for _ in range(rng.choice((0, 0, 1)))]
        for _ in range(TRIES_MAX):
            try:
                answers = pipeline.line.submit(copies)
            except (Unavailable, OrganisationFrozen):
                scheduler.wait(rng.uniform(0, 10), pipeline)
                continue
            if are_busy(answers):
                # What there was room for is stored, and known when it is submitted again.
                pipeline.publish(answers)
                scheduler.wait(rng.uniform(0, 10), pipeline)
                continue
            self._world.invariants.on_accepted(copies, answers)
            self._accepted(turn, answers[0].key, force=force)
            pipeline.publish(answers)
            return answers[-1].key
        return None

    def _accepted(self, turn: LLMRequest, key: CallKey, *, force: bool) -> None:
        """The same turn is the same call, and another turn is another one; what has an answer is not paid again."""
        name = _turn_of(turn)
        call_id = self._calls.setdefault(name, key.call_id)
        turn_known = self._turns.setdefault(key.call_id, name)
        said = f"{self._world.named(key)} is {name[1]}, and was {turn_known[1]}"
        is_one = (call_id, turn_known) == (key.call_id, name)
        self._world.invariants.check("a_turn_is_one_call", is_one, said)
        self._forced |= {name} if force else set()
        calls = self._world.ledger.tables.calls
        before = [calls[CallKey(key.call_id, n)].state for n in range(1, key.generation)]
        is_paid_again = CallState.SUCCEEDED in before and name not in self._forced
        said = f"{self._world.named(key)} comes after {before}"
        self._world.invariants.check("a_turn_is_paid_once", not is_paid_again, said)
        self._world.scheduler.counts["turn submitted"] += 1
        self._world.scheduler.counts["later turn submitted"] += len(turn.messages) > 1

    def _result(self, pipeline: ExternalActor, key: CallKey) -> LLMResult | None:
        """Wait for the end of a call; None if it has no answer, or not in time."""
        world = self._world
        for _ in range(LOOKS_MAX):
            world.scheduler.wait(world.rng.uniform(0.2, LOOK_S), pipeline)
            try:
                (view,) = pipeline.line.read([key], Bodies.REPLY)
            except Unavailable:
                continue
            if view is None or view.state.is_open:
                continue
            if error_of(view) is not None:
                return None
            assert view.last is not None
            result = result_of(view)
            sent = self._answers.get(view.last.attempt_id)
            came = sent is not None and (result.tool_calls, result.reasoning) == (
                sent.tool_calls,
                sent.reasoning,
            )
            world.invariants.check("a_turn_brings_its_tool_calls", came, world.named(key))
            world.scheduler.counts["turn answered"] += 1
            return result
        return None

    def _next(self, turn: LLMRequest, result: LLMResult, found: str) -> LLMRequest | None:
        """The next turn; None if nothing is asked for."""
        if not result.tool_calls:
            self._world.scheduler.counts["conversation ended"] += 1
            return None
        results = [
            Message(role="tool", tool_call_id=call.id, content=found) for call in result.tool_calls
        ]
        messages = (*turn.messages, result.message, *results)
        return turn.model_copy(update={"messages": messages})

    # The provider.

    def answered(
        self, reply: ProviderReply, fate: str | None, request: LLMRequest, attempt_id: UUID
    ) -> ProviderReply:
        """A reply as this provider sends it to a request with tools: calls of them, until the last turn."""
        if not request.tools or not reply.texts[0]:
            return reply
        turns = int(request.messages[0].content.partition(" ")[0])
        if sum(message.role == "tool" for message in request.messages) < turns - 1:
            # What differs from attempt to attempt is in one place only, so that each place counts.
            origin, thinks = reply.texts[0], request.call_type == THINKING
            call = ToolCall(id=CALL_ID, name=TOOLS[0].name, arguments="{}" if thinks else origin)
            thoughts = (ReasoningBlock(protocol="sim", data=origin),) if thinks else ()
            reply = replace(reply, texts=("",), tool_calls=(call,), reasoning=thoughts)
            reply = replace(reply, finish_reason="tool_calls")
        if fate != "unstorable":
            self._answers[attempt_id] = reply
        return reply

    def origin(self, result: LLMResult) -> Mapping[str, Any]:
        """Who was answered, and in which attempt: it is in the text, the reasoning or the tool call."""
        thoughts, calls = result.reasoning, result.tool_calls
        said = result.text or (thoughts[0].data if thoughts else calls[0].arguments)
        origin: dict[str, Any] = json.loads(said)
        self._world.invariants.check("a_turn_brings_its_tool_calls", "attempt" in origin, said)
        return origin

    def at_rest(self) -> None:
        """A good answer that was kept is a result, whether it is a text or asks for tools."""
        for attempt_id in self._answers:
            row = self._world.ledger.tables.attempts[attempt_id]
            is_kept = row.reply is not None and row.settled_by_hand_at is None
            is_result = row.status is AttemptStatus.SUCCEEDED
            said = f"{self._world.named(attempt_id)} is {row.status}: {row.error}"
            check = self._world.invariants.check
            check("a_turn_that_was_answered_has_a_result", is_result or not is_kept, said)


def _turn_of(request: LLMRequest) -> Turn:
    """What makes a turn the same, besides what all turns of these conversations share."""
    messages = [message.model_dump_json() for message in request.messages]
    return request.org_id, f"{request.call_type} {messages}"
