"""
Repairs: the model is shown its answer and what is wrong with it, and is asked again. Each is an attempt with its hold.

Nothing is stored for a repair. The broken answer and the complaints are in the row of the attempt before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from callgate.domain.bounds import REQUEST_BYTES_MAX
from callgate.domain.messages import Message
from callgate.domain.provider import MESSAGE_CHARS_MAX, Billing, Failure, ProviderReply
from callgate.domain.requests import MESSAGES_MAX, LLMRequest
from callgate.domain.retry import INVALID_OUTPUT

COMPLAINTS_MAX = 10
"""How many complaints a validator looks for, if the answer can be repaired."""
BREAKS = "the answer breaks the schema: "
HEADING = "Your answer does not fit the JSON Schema:\n"
ASK = "\nAnswer again, with JSON that fits."
ADDED_MESSAGES = 2


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


def repair_of(request: LLMRequest, broken: Broken) -> LLMRequest:
    """
    The request that asks for a corrected answer: the caller's messages, the answer, and the complaints.

    Raises:
        ValueError: There is no room for the answer, or no message can have it.
    """
    size = sum(len(text.encode()) for text in (*request.texts(), broken.reply.texts[0]))
    if len(request.messages) + ADDED_MESSAGES > MESSAGES_MAX or size > REQUEST_BYTES_MAX:
        raise ValueError("the request would be too large")
    complaints = broken.failure.message.removeprefix(BREAKS)
    added = (
        Message(role="assistant", content=broken.reply.texts[0]),
        Message(role="user", content=f"{HEADING}{complaints}{ASK}"),
    )
    return request.model_copy(update={"messages": (*request.messages, *added)})
