"""What the provider of a memory client answers, as a test scripts it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import BaseModel

from callgate.adapters.memory.provider import TIMEOUT, MemoryProvider, Rule
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.messages import ReasoningBlock, ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Usage

__all__ = ["CONNECTION_LOST", "TIMEOUT", "Answer", "Refusal", "Script", "Step", "UnscriptedRequest"]

CONNECTION_LOST = Failure(
    "connection_lost",
    "the connection broke after the request may have left",
    True,
    Billing.UNKNOWN,
)
"""It may have been billed."""


class UnscriptedRequest(AssertionError):
    """The script says nothing about a request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply with more to it than its text."""

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    usage: Usage | None = None
    """None: a token per word, and never more output than the request allows."""
    finish_reason: str | None = None
    """None: `stop`, or `tool_calls` if there are any."""
    refusal: str | None = None
    """Why the model does not answer."""
    reasoning: Sequence[ReasoningBlock] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The provider refuses the request with an HTTP status, which is read as the real adapters read it."""

    status: int
    code: str | None = None
    """The code in the body of the error, for example `context_length_exceeded`."""
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Step: TypeAlias = (
    str
    | BaseModel
    | dict[str, Any]
    | ToolCall
    | Answer
    | Refusal
    | Failure
    | Callable[[LLMRequest], "Step"]
)
"""One reply: text, a parsed model or its fields, a call of a tool, a refusal, or a function that makes one of them."""


class Script:
    """
    The rules of a provider, in order: the first that fits a request and is not used up answers it.

    A request that no rule fits raises `UnscriptedRequest` where the test submits it or waits for it.
    """

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._provider: MemoryProvider | None = None
        self._catalogue = Catalogue()
        self.unscripted: list[LLMRequest] = []
        """Requests that no rule fitted."""

    def reply(
        self,
        *steps: Step,
        match: str = "",
        call_type: str | None = None,
        model: str | None = None,
        org_id: str | None = None,
        latency_s: float = 0.0,
    ) -> Script:
        """
        Answer the requests that fit with these steps, in order; the last one repeats.

        Args:
            match: A part of any of its messages. A repair is sent with the first question, so it fits too.
            latency_s: What each step takes, in the time of the test; nothing sleeps. `math.inf`: no answer comes.
        """
        if not steps:
            raise ValueError("a rule has at least one step")

        def fits(request: LLMRequest) -> bool:
            asked = (call_type, request.call_type), (model, request.model), (org_id, request.org_id)
            is_about = any(match in message.content for message in request.messages)
            return is_about and all(given in (None, found) for given, found in asked)

        for number, step in enumerate(steps, start=1):
            self._add(
                Rule(
                    answer=self._replying(step),
                    delay_s=latency_s,
                    times=1 if number < len(steps) else None,
                    fits=fits,
                )
            )
        return self

    def echo(self) -> Script:
        """Answer every other request with its last message."""
        self._add(Rule())
        return self

    def clear(self) -> None:
        """Forget all rules."""
        self._rules.clear()
        if self._provider is not None:
            self._provider.forget_rules()

    def answer_for(self, catalogue: Catalogue, provider: MemoryProvider) -> None:
        """Let a provider answer by these rules."""
        self._catalogue, self._provider = catalogue, provider
        for rule in self._rules:
            provider.add(rule)

    def refuse_unscripted(self, request: LLMRequest) -> Rule:
        """
        Say that no rule fits.

        Raises:
            UnscriptedRequest: Always.
        """
        self.unscripted.append(request)
        start = request.messages[-1].content[:80]
        raise UnscriptedRequest(
            f"no rule of the script fits this request (call_type={request.call_type!r}, model={request.model!r},"
            f" org_id={request.org_id!r}, its last message begins with {start!r}):"
            ' say what it gets, with `client.script.reply("...")`'
        )

    def _add(self, rule: Rule) -> None:
        self._rules.append(rule)
        if self._provider is not None:
            self._provider.add(rule)

    def _replying(self, step: Step) -> Callable[[LLMRequest], ProviderReply | Failure]:
        def replying(request: LLMRequest) -> ProviderReply | Failure:
            entry = self._catalogue.providers.get(request.provider) or ProviderEntry()
            return reply_of(step, request, entry)

        return replying


def reply_of(step: Step, request: LLMRequest, entry: ProviderEntry) -> ProviderReply | Failure:
    """What a step is for one request."""
    if isinstance(step, Failure):
        return step
    if isinstance(step, Refusal):
        return _refused(step, entry)
    if isinstance(step, Answer):
        return _answered(step, request)
    if isinstance(step, ToolCall):
        return _answered(Answer(tool_calls=(step,)), request)
    if isinstance(step, BaseModel):
        return _answered(Answer(step.model_dump_json()), request)
    if isinstance(step, dict):
        return _answered(Answer(json.dumps(step)), request)
    if isinstance(step, str):
        return _answered(Answer(step), request)
    if callable(step):
        return reply_of(step(request), request, entry)
    raise TypeError(f"a step of a script cannot be of type {type(step).__name__}")


def _answered(answer: Answer, request: LLMRequest) -> ProviderReply:
    """Counts a token per word."""
    words_in = sum(len(message.content.split()) for message in request.messages)
    words_out = max(len(answer.text.split()), 1) * request.n
    usage = Usage(
        input_tokens=max(words_in, 1),
        output_tokens=min(words_out, request.n * (request.max_output_tokens or words_out)),
    )
    return ProviderReply(
        texts=(answer.text,) * request.n,
        finish_reason=answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop"),
        refusal=answer.refusal,
        usage=answer.usage or usage,
        service_tier=request.service_tier.value,
        model=request.model,
        provider_request_id=None,
        tool_calls=tuple(answer.tool_calls),
        reasoning=tuple(answer.reasoning),
    )


def _refused(refusal: Refusal, entry: ProviderEntry) -> Failure:
    from callgate.adapters.providers.http.refusals import refusal_of

    headers = dict(refusal.headers)
    if refusal.retry_after_s is not None:
        headers["retry-after"] = f"{refusal.retry_after_s:g}"
    error = {} if refusal.code is None else {"code": refusal.code}
    return refusal_of(refusal.status, error, headers, entry)
