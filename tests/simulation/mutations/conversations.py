"""Planted defects of turns: another turn gets the answer, or an answer that asks for tools is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from callgate.domain import identity
from callgate.domain.messages import Message
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.services import ai_call_logger, submit
from tests.simulation.mutations.registry import Patched, caught_by


def hashing(change: Callable[[Message], Message]) -> Patched:
    """Have the identity of a request see other messages."""
    canonical_bytes = identity.canonical_bytes

    def changed(request: LLMRequest) -> bytes:
        messages = tuple(map(change, request.messages))
        return canonical_bytes(request.model_copy(update={"messages": messages}))

    return patch.object(identity, "canonical_bytes", changed)


def reviewing(change: Callable[[ProviderReply], ProviderReply], *good_endings: str) -> Patched:
    """Have the review of an answer see something else where it asks for tools."""
    flaw_of = ai_call_logger.flaw_of

    def reviewed(reply: ProviderReply, good: Any, *rest: Any) -> Any:
        if reply.tool_calls:
            reply, good = change(reply), (*good, *good_endings)
        return flaw_of(reply, good, *rest)

    return patch.object(ai_call_logger, "flaw_of", reviewed)


@caught_by("a_turn_is_one_call", conversations=1, seed=2)
def a_turn_ignores_the_results_of_tools() -> Patched:
    """Whatever a tool has found, the answer is the same."""

    def without_result(message: Message) -> Message:
        return message.model_copy(update={"content": ""}) if message.role == "tool" else message

    return hashing(without_result)


@caught_by("a_turn_is_one_call", conversations=1, seed=12)
def a_turn_ignores_the_tool_calls() -> Patched:
    """Only what was said counts, not what the model asked for."""
    return hashing(lambda message: message.model_copy(update={"tool_calls": ()}))


@caught_by("a_turn_is_one_call", conversations=1, seed=55)
def a_turn_ignores_the_reasoning() -> Patched:
    """What the model thought is thought to change nothing."""
    return hashing(lambda message: message.model_copy(update={"reasoning": ()}))


@caught_by("a_turn_that_was_answered_has_a_result", conversations=1, seed=1)
def an_answer_with_tool_calls_is_empty() -> Patched:
    """It has no text: it is paid, and asked for again."""
    return reviewing(lambda reply: replace(reply, tool_calls=()), "tool_calls")


@caught_by("a_turn_that_was_answered_has_a_result", conversations=1, seed=1)
def an_ending_with_tool_calls_is_a_failure() -> Patched:
    """Only `stop` is known as a good ending."""
    return reviewing(lambda reply: replace(reply, tool_calls=(), texts=("x",)))


@caught_by("a_turn_brings_its_tool_calls", conversations=1, seed=2)
def the_reasoning_is_not_stored() -> Patched:
    """Who asks for the answer gets half of what the next turn needs."""
    to_json = ProviderReply.to_json

    def forgetful(self: ProviderReply) -> bytes:
        return to_json(replace(self, reasoning=()))

    return patch.object(ProviderReply, "to_json", forgetful)


@caught_by("a_turn_is_paid_once", conversations=1, seed=12)
def a_turn_is_always_new() -> Patched:
    """A submission in the middle of a conversation is thought to be nobody else's."""
    prepare = submit.SubmitService.prepare

    def prepared(self: Any, request: LLMRequest, **options: Any) -> Any:
        forced = {"force": True} if len(request.messages) > 1 else {}
        return prepare(self, request, **{**options, **forced})

    return patch.object(submit.SubmitService, "prepare", prepared)
