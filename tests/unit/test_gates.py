"""Gates: each limit exactly, the cheap gates first."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from callgate.domain.bounds import REQUEST_MAX_BYTES
from callgate.domain.catalogue import CHECK_CALL_TYPE, CallTypePolicy, Catalogue, ProviderEntry
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
from callgate.domain.gates import (
    TOKEN_MAX_BYTES,
    check,
    check_in_steps,
    check_size,
    check_stored_bytes,
    with_output_bound,
)
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest

CATALOGUE = Catalogue(
    providers={"openai": ProviderEntry(), "local": ProviderEntry()},
    call_types={
        "extraction": CallTypePolicy(
            models=("openai/gpt-4o*",),
            input_tokens_max=100,
            pages_max=3,
            max_output_tokens_default=50,
            max_output_tokens_max=200,
        )
    },
)
FITS = TokenBound(100, "bpe-openai")


class Counts:
    """An estimator that returns this bound, in two steps."""

    def __init__(self, bound: TokenBound) -> None:
        self.bound = bound
        self.asked: list[int] = []

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """Count."""
        self.asked.append(stop_above)
        yield
        return self.bound


def a_request(**fields: Any) -> LLMRequest:
    """A request that passes every gate."""
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "extraction",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "hello"}],
            "max_output_tokens": 200,
            "document_pages": 3,
            **fields,
        }
    )


def of_size(*contents: str) -> LLMRequest:
    """A request with these messages."""
    return a_request(messages=[{"role": "user", "content": content} for content in contents])


def test_a_request_exactly_at_every_limit_passes() -> None:
    check(a_request(), CATALOGUE, Counts(FITS))


def test_the_call_types_default_bounds_an_unbounded_request() -> None:
    """The number becomes part of the request: the hold and the provider use it."""
    request = with_output_bound(a_request(max_output_tokens=None), CATALOGUE)

    assert request.max_output_tokens == 50


def test_a_requests_own_bound_is_kept() -> None:
    request = a_request(max_output_tokens=7)

    assert with_output_bound(request, CATALOGUE) is request


def test_no_bound_and_no_default_is_refused() -> None:
    """Without a bound a hold cannot be an upper bound."""
    request = a_request(call_type="other", max_output_tokens=None)

    with pytest.raises(MissingOutputBound, match="'other' has no max_output_tokens_default"):
        with_output_bound(request, CATALOGUE)


def test_an_unresolved_bound_never_passes() -> None:
    """A caller that forgets `with_output_bound` gets an error."""
    with pytest.raises(MissingOutputBound):
        check(a_request(max_output_tokens=None), CATALOGUE, Counts(FITS))


def test_a_catalogue_can_refuse_call_types_that_it_does_not_name() -> None:
    """A misspelt one would silently have the rules of the default; the check of providers has its own."""
    strict = CATALOGUE.model_copy(update={"only_named_call_types": True})

    check_size(a_request(), strict)
    check_size(a_request(call_type="extractoin", model="any"), CATALOGUE)
    check_size(a_request(call_type=CHECK_CALL_TYPE, model="any"), strict)
    with pytest.raises(UnknownCallType, match=r"'extractoin' in the catalogue.*: extraction$"):
        check_size(a_request(call_type="extractoin", model="any"), strict)


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownProvider, match="'opnai' in the catalogue; it has: local, openai"):
        check_size(a_request(provider="opnai"), CATALOGUE)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-5"), ("local", "gpt-4o"), ("openai", "my-gpt-4o")]
)
def test_a_model_the_call_type_does_not_allow_is_refused(provider: str, model: str) -> None:
    """Patterns are `provider/model`, matched as a whole."""
    with pytest.raises(UnknownModel, match=f"{provider}/{model}; it allows: openai/gpt-4o"):
        check_size(a_request(provider=provider, model=model), CATALOGUE)


def test_a_call_type_without_a_table_has_the_default_limits() -> None:
    """Any model of a known provider, 128,000 tokens, 200 pages."""
    request = a_request(call_type="other", provider="local", model="x", document_pages=200)

    check(request, CATALOGUE, Counts(TokenBound(128_000, "utf8-bytes")))


def test_one_page_too_many_is_refused() -> None:
    """The message has the numbers and the remedy."""
    with pytest.raises(TooManyPages, match=r"4 pages, over pages_max 3 .*split the document"):
        check_size(a_request(document_pages=4), CATALOGUE)


def test_a_request_without_pages_passes_the_gate_on_pages() -> None:
    check(a_request(document_pages=None), CATALOGUE, Counts(FITS))


def test_one_output_token_too_many_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is 201, over max_output_tokens_max 200"):
        check_size(a_request(max_output_tokens=201), CATALOGUE)


def test_one_input_token_too_many_is_refused() -> None:
    """The message names the method: a bound by bytes may be far above the true count."""
    with pytest.raises(
        InputTooLarge, match=r"101 tokens \(by utf8-bytes\), over input_tokens_max 100"
    ):
        check(a_request(), CATALOGUE, Counts(TokenBound(101, "utf8-bytes")))


def test_too_many_bytes_are_refused_before_counting() -> None:
    """100 tokens have at most 12,800 bytes, over all messages together."""
    max_bytes = 100 * TOKEN_MAX_BYTES
    half = "x" * (max_bytes // 2)

    check_size(of_size(half, half), CATALOGUE)
    with pytest.raises(InputTooLarge, match=f"have {max_bytes + 1} bytes"):
        check_size(of_size(half, half, "x"), CATALOGUE)


def test_the_gate_on_bytes_counts_bytes_not_characters() -> None:
    """A Chinese character has three."""
    characters = 100 * TOKEN_MAX_BYTES // 3

    check_size(of_size("汉" * characters), CATALOGUE)
    with pytest.raises(InputTooLarge):
        check_size(of_size("汉" * (characters + 1)), CATALOGUE)


def test_the_gate_on_tokens_is_the_last() -> None:
    with pytest.raises(TooManyPages):
        check(a_request(document_pages=4), CATALOGUE, Counts(TokenBound(101, "bpe-openai")))


def test_no_message_holds_prompt_text() -> None:
    """Errors are logged."""
    request = of_size("secret" * 10_000)

    with pytest.raises(InputTooLarge) as raised:
        check_size(request, CATALOGUE)

    assert "secret" not in str(raised.value)


def test_counting_stops_at_the_gates_limit() -> None:
    estimator = Counts(FITS)

    assert check(a_request(), CATALOGUE, estimator) == FITS
    assert estimator.asked == [100]


def test_the_larger_count_is_the_bound() -> None:
    """A client that reports too few tokens would overrun the budget."""
    assert check(a_request(), CATALOGUE, Counts(TokenBound(7, "x")), 9) == TokenBound(9, "client")
    assert check(a_request(), CATALOGUE, Counts(TokenBound(9, "x")), 7) == TokenBound(9, "x")


def test_a_clients_count_over_the_limit_is_refused_without_counting() -> None:
    estimator = Counts(FITS)

    with pytest.raises(InputTooLarge, match=r"101 tokens \(by client\)"):
        check(a_request(), CATALOGUE, estimator, 101)

    assert estimator.asked == []


def test_a_schema_that_multiplies_is_refused_before_anything_is_counted() -> None:
    """The client and the worker use the same gates."""
    estimator = Counts(FITS)

    with pytest.raises(InvalidSchema, match="the response schema cannot be used: a \\$ref leads"):
        check(a_request(response_schema={"$ref": "#"}), CATALOGUE, estimator)

    assert estimator.asked == []


def test_check_in_steps_yields_between_gates() -> None:
    schema = {"type": "object"}

    pauses = list(check_in_steps(a_request(response_schema=schema), CATALOGUE, Counts(FITS)))

    assert len(pauses) == 3


def test_a_stored_request_has_a_size_limit() -> None:
    """However high the call type's limit of tokens is."""
    check_stored_bytes(b"x" * REQUEST_MAX_BYTES)

    with pytest.raises(InputTooLarge, match="33554433 bytes as JSON"):
        check_stored_bytes(b"x" * (REQUEST_MAX_BYTES + 1))
