"""Gates: who may ask for what, the cheap questions first, and exactly at the limits."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from callgate.domain.bounds import REQUEST_BYTES_MAX
from callgate.domain.catalogue import CallTypePolicy, Catalogue, ProviderEntry
from callgate.domain.errors import (
    InputTooLarge,
    InvalidRequest,
    InvalidSchema,
    MissingOutputBound,
    TooManyPages,
    UnknownModel,
    UnknownProvider,
)
from callgate.domain.gates import (
    TOKEN_BYTES_MAX,
    check,
    check_size,
    check_stored_bytes,
    checking,
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
    """An estimator that finds this bound, in two steps."""

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
    """A limit is the last number that is allowed."""
    check(a_request(), CATALOGUE, Counts(FITS))


def test_the_call_types_default_bounds_an_unbounded_request() -> None:
    """What is held is what is sent, so the number is part of the request from here on."""
    request = with_output_bound(a_request(max_output_tokens=None), CATALOGUE)

    assert request.max_output_tokens == 50


def test_a_requests_own_bound_is_kept() -> None:
    """The default is only for those who do not say."""
    request = a_request(max_output_tokens=7)

    assert with_output_bound(request, CATALOGUE) is request


def test_no_bound_and_no_default_is_refused() -> None:
    """Without a bound no hold could be an upper bound."""
    request = a_request(call_type="other", max_output_tokens=None)

    with pytest.raises(MissingOutputBound, match="'other' has no max_output_tokens_default"):
        with_output_bound(request, CATALOGUE)


def test_an_unresolved_bound_never_passes() -> None:
    """A caller that forgets the first step is told."""
    with pytest.raises(MissingOutputBound):
        check(a_request(max_output_tokens=None), CATALOGUE, Counts(FITS))


def test_an_unknown_provider_is_refused_with_those_that_are_known() -> None:
    """The caller sees what it could have meant."""
    with pytest.raises(UnknownProvider, match="'opnai' in the catalogue; it has: local, openai"):
        check_size(a_request(provider="opnai"), CATALOGUE)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-5"), ("local", "gpt-4o"), ("openai", "my-gpt-4o")]
)
def test_a_model_the_call_type_does_not_allow_is_refused(provider: str, model: str) -> None:
    """Patterns are `provider/model`, matched whole."""
    with pytest.raises(UnknownModel, match=f"{provider}/{model}; it allows: openai/gpt-4o"):
        check_size(a_request(provider=provider, model=model), CATALOGUE)


def test_a_call_type_without_a_table_has_the_default_limits() -> None:
    """Any model of a known provider, 128,000 tokens, 200 pages."""
    request = a_request(call_type="other", provider="local", model="x", document_pages=200)

    check(request, CATALOGUE, Counts(TokenBound(128_000, "utf8-bytes")))


def test_one_page_too_many_is_refused() -> None:
    """The numbers and the remedy are in the message."""
    with pytest.raises(TooManyPages, match=r"4 pages, over pages_max 3 .*split the document"):
        check_size(a_request(document_pages=4), CATALOGUE)


def test_a_request_without_pages_has_no_page_gate() -> None:
    """Not every prompt comes from a document."""
    check(a_request(document_pages=None), CATALOGUE, Counts(FITS))


def test_one_output_token_too_many_is_refused() -> None:
    """The caller asked for more than its call type may cost."""
    with pytest.raises(InvalidRequest, match="is 201, over max_output_tokens_max 200"):
        check_size(a_request(max_output_tokens=201), CATALOGUE)


def test_one_input_token_too_many_is_refused() -> None:
    """The message says how the tokens were bounded: by bytes may be far above the truth."""
    with pytest.raises(
        InputTooLarge, match=r"101 tokens \(by utf8-bytes\), over input_tokens_max 100"
    ):
        check(a_request(), CATALOGUE, Counts(TokenBound(101, "utf8-bytes")))


def test_what_cannot_fit_by_bytes_is_refused_before_it_is_counted() -> None:
    """100 tokens of at most 128 bytes: one byte more is refused, over all messages together."""
    bytes_max = 100 * TOKEN_BYTES_MAX
    half = "x" * (bytes_max // 2)

    check_size(of_size(half, half), CATALOGUE)
    with pytest.raises(InputTooLarge, match=f"have {bytes_max + 1} bytes"):
        check_size(of_size(half, half, "x"), CATALOGUE)


def test_the_size_gate_counts_bytes_not_characters() -> None:
    """A Chinese character has three."""
    characters = 100 * TOKEN_BYTES_MAX // 3

    check_size(of_size("汉" * characters), CATALOGUE)
    with pytest.raises(InputTooLarge):
        check_size(of_size("汉" * (characters + 1)), CATALOGUE)


def test_the_token_gate_is_asked_last() -> None:
    """A caller that breaks two rules hears of the cheaper one."""
    with pytest.raises(TooManyPages):
        check(a_request(document_pages=4), CATALOGUE, Counts(TokenBound(101, "bpe-openai")))


def test_no_message_holds_prompt_text() -> None:
    """Errors are logged."""
    request = of_size("secret" * 10_000)

    with pytest.raises(InputTooLarge) as raised:
        check_size(request, CATALOGUE)

    assert "secret" not in str(raised.value)


def test_counting_is_told_where_to_stop() -> None:
    """What is over the limit is refused all the same: nobody need know by how much."""
    estimator = Counts(FITS)

    assert check(a_request(), CATALOGUE, estimator) == FITS
    assert estimator.asked == [100]


def test_the_greater_count_is_the_bound() -> None:
    """A client that says too little would overrun the budget; one that says more holds more."""
    assert check(a_request(), CATALOGUE, Counts(TokenBound(7, "x")), 9) == TokenBound(9, "client")
    assert check(a_request(), CATALOGUE, Counts(TokenBound(9, "x")), 7) == TokenBound(9, "x")


def test_a_count_over_the_limit_is_refused_uncounted() -> None:
    """Its client has counted: once is enough."""
    estimator = Counts(FITS)

    with pytest.raises(InputTooLarge, match=r"101 tokens \(by client\)"):
        check(a_request(), CATALOGUE, estimator, 101)

    assert estimator.asked == []


def test_a_schema_that_multiplies_is_refused_before_anything_is_counted() -> None:
    """The client and the worker ask the same gates."""
    estimator = Counts(FITS)

    with pytest.raises(InvalidSchema, match="the response schema cannot be used: a \\$ref leads"):
        check(a_request(response_schema={"$ref": "#"}), CATALOGUE, estimator)

    assert estimator.asked == []


def test_the_gates_pause_between_their_steps() -> None:
    """Others have their turn meanwhile."""
    schema = {"type": "object"}

    pauses = list(checking(a_request(response_schema=schema), CATALOGUE, Counts(FITS)))

    assert len(pauses) == 3


def test_a_request_is_stored_up_to_its_bound() -> None:
    """However high a call type sets its limit of tokens: the ledger takes no more."""
    check_stored_bytes(b"x" * REQUEST_BYTES_MAX)

    with pytest.raises(InputTooLarge, match="33554433 bytes as JSON"):
        check_stored_bytes(b"x" * (REQUEST_BYTES_MAX + 1))
