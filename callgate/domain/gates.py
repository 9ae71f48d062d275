"""
What a request must satisfy before anything is stored or paid. Cheap gates come first, tokens last.

The order of a caller: `with_output_bound`, then `checking`. Reading a schema and counting tokens take time in
proportion to the text, so bytes refuse first what could not pass anyway, counting stops at the limit, and all of it is
done in steps between which others have their turn.
"""

from __future__ import annotations

from collections.abc import Generator

from callgate.domain.bounds import REQUEST_BYTES_MAX
from callgate.domain.catalogue import CallTypePolicy, Catalogue
from callgate.domain.errors import (
    InputTooLarge,
    InvalidRequest,
    InvalidSchema,
    MissingOutputBound,
    TooManyPages,
    UnknownModel,
    UnknownProvider,
)
from callgate.domain.ports import TokenEstimatorPort
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from callgate.domain.schema_cost import why_too_costly

TOKEN_BYTES_MAX = 128
"""
The longest token of the vocabularies that are counted exactly (o200k_base, cl100k_base: a run of 128 spaces).

A text of N bytes has at least N / 128 tokens in them. Where the tokenizer is unknown the bound is the bytes themselves.
So a text this gate refuses would have been refused by its tokens too.
"""


def with_output_bound(request: LLMRequest, catalogue: Catalogue) -> LLMRequest:
    """
    Resolve how many tokens one answer may have: the request's own number, else the call type's default.

    Raises:
        MissingOutputBound: Neither says; without a bound no hold could be an upper bound.
    """
    if request.max_output_tokens is not None:
        return request
    default = catalogue.policy(request.call_type).max_output_tokens_default
    if default is None:
        raise MissingOutputBound(
            f"call type {request.call_type!r} has no max_output_tokens_default: set max_output_tokens in the request"
        )
    return request.model_copy(update={"max_output_tokens": default})


def checking(
    request: LLMRequest, catalogue: Catalogue, estimator: TokenEstimatorPort, counted: int = 0
) -> Generator[None, None, TokenBound]:
    """
    Ask every gate, in steps of some milliseconds, and return the bound of its input tokens.

    Args:
        request: It has its output bound already.
        counted: The tokens that somebody else says it has; more count than are found here.

    Raises:
        UnknownProvider, UnknownModel, TooManyPages, MissingOutputBound, InputTooLarge, InvalidSchema, InvalidRequest.
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
    """Ask every gate in one go; see `checking`."""
    steps = checking(request, catalogue, estimator, counted)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            bound: TokenBound = end.value
            return bound


def check_size(request: LLMRequest, catalogue: Catalogue) -> None:
    """
    Ask every gate that takes no time.

    Raises:
        UnknownProvider, UnknownModel, TooManyPages, MissingOutputBound, InputTooLarge, InvalidRequest.
    """
    if request.provider not in catalogue.providers:
        known = ", ".join(sorted(catalogue.providers)) or "none"
        raise UnknownProvider(f"no provider {request.provider!r} in the catalogue; it has: {known}")
    policy = catalogue.policy(request.call_type)
    if not policy.allows(request.provider, request.model):
        raise UnknownModel(
            f"call type {request.call_type!r} does not allow {request.provider}/{request.model}; "
            f"it allows: {', '.join(policy.models)}"
        )
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
    Ask the last gate: what the ledger takes. Limits of tokens may be set higher, and JSON escapes some characters.

    Raises:
        InputTooLarge
    """
    if len(stored) > REQUEST_BYTES_MAX:
        raise InputTooLarge(
            f"the request has {len(stored)} bytes as JSON, over {REQUEST_BYTES_MAX}: shorten the messages"
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
        raise MissingOutputBound("the request has no max_output_tokens: resolve it first")
    if tokens > policy.max_output_tokens_max:
        raise InvalidRequest(
            f"max_output_tokens is {tokens}, over max_output_tokens_max {policy.max_output_tokens_max} of call type "
            f"{request.call_type!r}: ask for fewer, or raise the limit"
        )


def _check_bytes(request: LLMRequest, policy: CallTypePolicy) -> None:
    bytes_max = policy.input_tokens_max * TOKEN_BYTES_MAX
    size = sum(_utf8_bytes(message.content) for message in request.messages)
    if size > bytes_max:
        raise InputTooLarge(
            f"the messages have {size} bytes, which is surely over input_tokens_max {policy.input_tokens_max} of call "
            f"type {request.call_type!r} ({TOKEN_BYTES_MAX} bytes per token at most): shorten the messages"
        )


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
