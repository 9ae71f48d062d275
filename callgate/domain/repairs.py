"""
Repairs: the model is shown its answer and what is wrong with it, and is asked again. Each is an attempt with its hold.

Nothing is stored for a repair. The broken answer and the complaints are in the row of the attempt before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from callgate.domain.bounds import REQUEST_MAX_BYTES
from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.messages import Message
from callgate.domain.provider import MESSAGE_CHARS_MAX, Billing, Failure, ProviderReply
from callgate.domain.requests import MESSAGES_MAX, LLMRequest
from callgate.domain.retry import INVALID_OUTPUT, paid_attempts_max

COMPLAINTS_MAX = 10
"""How many complaints a validator looks for, if the answer can be repaired."""
BREAKS = "the answer breaks the schema: "
HEADING = "Your answer does not fit the JSON Schema:\n"
ASK = "\nAnswer again, with JSON that fits."
ADDED_MESSAGES = 2
ADDED_TOKENS = len(HEADING) + len(ASK) + 4 * MESSAGE_CHARS_MAX + 64 * ADDED_MESSAGES
"""The most tokens that a repair adds beside the broken answer: as many as its text has bytes, and two templates."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An attempt that failed although it has a reply."""

    failure: Failure
    reply: ProviderReply = field(repr=False)


def invalid_output(complaints: Iterable[str]) -> Failure:
    """
    The failure of an answer that breaks its schema: its complaints by number, as many whole ones as fit.

    Each has its own line. The first one alone decides which dead letters are alike; see `Failure.fingerprint`.
    """
    message = BREAKS
    for number, complaint in enumerate(complaints, 1):
        line = f"{'' if number == 1 else chr(10)}{number}. {complaint}"
        if number > 1 and len(message) + len(line) > MESSAGE_CHARS_MAX:
            break
        message += line
    return Failure(INVALID_OUTPUT, message, True, Billing.BY_USAGE)


def repairs_possible(request: LLMRequest, policy: CallTypePolicy) -> int:
    """How many attempts of a call may be repairs."""
    if request.response_schema is None or request.n > 1:
        return 0
    return min(policy.repairs_max, paid_attempts_max(policy) - 1)


def repair_tokens(request: LLMRequest, input_tokens: int, policy: CallTypePolicy) -> int:
    """The most input tokens of a repair, if the broken answer has as many as it was allowed to have."""
    tokens = input_tokens + (request.max_output_tokens or 0) + ADDED_TOKENS
    return min(tokens, max(input_tokens, policy.input_tokens_max))


def repair_of(request: LLMRequest, broken: Broken) -> LLMRequest:
    """
    The request that asks for a corrected answer: the caller's messages, the answer, and the complaints.

    Raises:
        ValueError: There is no room for the answer, or no message can have it.
    """
    size = sum(len(text.encode()) for text in (*request.texts(), broken.reply.texts[0]))
    if len(request.messages) + ADDED_MESSAGES > MESSAGES_MAX or size > REQUEST_MAX_BYTES:
        raise ValueError("the request would be too large")
    complaints = broken.failure.message.removeprefix(BREAKS)
    added = (
        Message(role="assistant", content=broken.reply.texts[0]),
        Message(role="user", content=f"{HEADING}{complaints}{ASK}"),
    )
    return request.model_copy(update={"messages": (*request.messages, *added)})
