"""
Gates: checks that a request must pass before anything is stored or paid. Cheap gates come first, tokens last.

Call `with_output_bound` first, then `check` or `check_in_steps`. Reading a schema and counting tokens take time in
proportion to the text. So the gate on bytes comes before them, counting stops at the limit, and `check_in_steps` yields
between short steps so that other work can run.
"""

from __future__ import annotations

from collections.abc import Generator

from callgate.domain.bounds import REQUEST_MAX_BYTES
from callgate.domain.catalogue import CallTypePolicy, Catalogue
from callgate.domain.dialect import why_inexpressible
from callgate.domain.errors import (
    InputTooLarge,
    InvalidRequest,
    InvalidSchema,
    MissingOutputBound,
    TooManyPages,
    UnknownCallType,
    UnknownModel,
    UnknownProvider,
)
from callgate.domain.ports import TokenEstimatorPort
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from callgate.domain.schema_cost import why_too_costly

TOKEN_MAX_BYTES = 128
"""
The longest token of the exactly counted vocabularies (o200k_base, cl100k_base): a run of 128 spaces.

A text of N bytes has at least N / 128 of these tokens. For an unknown tokenizer the token bound is N. So the gate on
bytes refuses only texts that the gate on tokens would refuse too.
"""


def with_output_bound(request: LLMRequest, catalogue: Catalogue) -> LLMRequest:
    """
    Return the request with `max_output_tokens` set: its own number, else the call type's default.

    Raises:
        MissingOutputBound: Neither is set. Without it a hold could not be an upper bound.
    """
    if request.max_output_tokens is not None:
        return request
    default = catalogue.policy(request.call_type).max_output_tokens_default
    if default is None:
        raise MissingOutputBound(
            f"call type {request.call_type!r} has no max_output_tokens_default: set max_output_tokens in the request"
        )
    return request.model_copy(update={"max_output_tokens": default})


def check_in_steps(
    request: LLMRequest, catalogue: Catalogue, estimator: TokenEstimatorPort, counted: int = 0
) -> Generator[None, None, TokenBound]:
    """
    Check every gate in steps of a few milliseconds, and return the bound of the input tokens.

    Args:
        request: Its `max_output_tokens` is set.
        counted: Input tokens as counted by the client. The larger of this and the own count applies.

    Raises:
        UnknownProvider, UnknownCallType, UnknownModel, TooManyPages, MissingOutputBound, InputTooLarge, InvalidSchema,
        InvalidRequest.
    """
    check_size(request, catalogue)
    policy = catalogue.policy(request.call_type)
    bound = TokenBound(counted, "client")
    _check_tokens(bound, request, policy)
    yield
    if request.response_schema and (why := why_too_costly(request.response_schema)):
        raise InvalidSchema(f"the response schema cannot be used: {why}")
    yield
    found = yield from estimator.counting(request, policy.input_tokens_max)
    bound = max(bound, found, key=lambda bound: bound.tokens)
    _check_tokens(bound, request, policy)
    return bound


def check(
    request: LLMRequest, catalogue: Catalogue, estimator: TokenEstimatorPort, counted: int = 0
) -> TokenBound:
    """Check every gate at once; see `check_in_steps`."""
    steps = check_in_steps(request, catalogue, estimator, counted)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            bound: TokenBound = end.value
            return bound


def check_size(request: LLMRequest, catalogue: Catalogue) -> None:
    """
    Check every gate that does not read or count text.

    Raises:
        UnknownProvider, UnknownCallType, UnknownModel, TooManyPages, MissingOutputBound, InputTooLarge,
        InvalidRequest.
    """
    if request.provider not in catalogue.providers:
        known = ", ".join(sorted(catalogue.providers)) or "none"
        raise UnknownProvider(f"no provider {request.provider!r} in the catalogue; it has: {known}")
    if not catalogue.takes_call_type(request.call_type):
        known = ", ".join(sorted(catalogue.call_types)) or "none"
        raise UnknownCallType(
            f"no call type {request.call_type!r} in the catalogue, which takes only those: {known}"
        )
    policy = catalogue.policy(request.call_type)
    if not policy.allows(request.provider, request.model):
        raise UnknownModel(
            f"call type {request.call_type!r} does not allow {request.provider}/{request.model}; "
            f"it allows: {', '.join(policy.models)}"
        )
    entry = catalogue.providers[request.provider]
    if entry.lists_models and request.model not in entry.models:
        raise UnknownModel(
            f"the catalogue does not say which model {request.model!r} of provider {request.provider!r} is: add it to "
            f"models of [providers.{request.provider}]"
        )
    if why := why_inexpressible(request, entry):
        raise InvalidRequest(why)
    _check_pages(request, policy)
    _check_output(request, policy)
    _check_bytes(request, policy)


def _check_tokens(bound: TokenBound, request: LLMRequest, policy: CallTypePolicy) -> None:
    if bound.tokens > policy.input_tokens_max:
        raise InputTooLarge(
            f"the input was counted up to {bound.tokens} tokens (by {bound.method}), over input_tokens_max "
            f"{policy.input_tokens_max} of call type {request.call_type!r}: shorten the messages, or raise the limit"
        )


def check_stored_bytes(stored: bytes) -> None:
    """
    Check the last gate: the ledger's own limit for a request as JSON.

    The other gates do not imply it, because `input_tokens_max` may be set high and JSON escapes some characters.

    Raises:
        InputTooLarge: The request is over `REQUEST_MAX_BYTES`.
    """
    if len(stored) > REQUEST_MAX_BYTES:
        raise InputTooLarge(
            f"the request has {len(stored)} bytes as JSON, over {REQUEST_MAX_BYTES}: shorten the messages"
        )


def _check_pages(request: LLMRequest, policy: CallTypePolicy) -> None:
    pages = request.document_pages
    if pages is not None and pages > policy.pages_max:
        raise TooManyPages(
            f"the document has {pages} pages, over pages_max {policy.pages_max} of call type "
            f"{request.call_type!r}: split the document, or raise the limit"
        )


def _check_output(request: LLMRequest, policy: CallTypePolicy) -> None:
    tokens = request.max_output_tokens
    if tokens is None:
        raise MissingOutputBound(
            "the request has no max_output_tokens: call with_output_bound first"
        )
    if tokens > policy.max_output_tokens_max:
        raise InvalidRequest(
            f"max_output_tokens is {tokens}, over max_output_tokens_max {policy.max_output_tokens_max} of call type "
            f"{request.call_type!r}: ask for fewer, or raise the limit"
        )


def _check_bytes(request: LLMRequest, policy: CallTypePolicy) -> None:
    max_bytes = policy.input_tokens_max * TOKEN_MAX_BYTES
    size = sum(map(_utf8_bytes, request.texts()))
    if size > max_bytes:
        raise InputTooLarge(
            f"messages and tools have {size} bytes, which is over input_tokens_max {policy.input_tokens_max} of call "
            f"type {request.call_type!r} ({TOKEN_MAX_BYTES} bytes per token at most): shorten the messages"
        )


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
