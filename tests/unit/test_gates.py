"""Gates: who may ask for what, the cheap questions first, and exactly at the limits."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.domain.bounds import REQUEST_BYTES_MAX
from callgate.domain.catalogue import CallTypePolicy, Catalogue, ProviderEntry
from callgate.domain.errors import (
    InputTooLarge,
    InvalidRequest,
    MissingOutputBound,
    TooManyPages,
    UnknownModel,
    UnknownProvider,
)
from callgate.domain.gates import (
    TOKEN_BYTES_MAX,
    check_gates,
    check_size,
    check_stored_bytes,
    with_output_bound,
)
from callgate.domain.models import LLMRequest
from callgate.domain.ports import TokenBound

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
    check_gates(a_request(), CATALOGUE, FITS)


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
        check_gates(a_request(max_output_tokens=None), CATALOGUE, FITS)


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

    check_gates(request, CATALOGUE, TokenBound(128_000, "utf8-bytes"))


def test_one_page_too_many_is_refused() -> None:
    """The numbers and the remedy are in the message."""
    with pytest.raises(TooManyPages, match=r"4 pages, over pages_max 3 .*split the document"):
        check_size(a_request(document_pages=4), CATALOGUE)


def test_a_request_without_pages_has_no_page_gate() -> None:
    """Not every prompt comes from a document."""
    check_gates(a_request(document_pages=None), CATALOGUE, FITS)


def test_one_output_token_too_many_is_refused() -> None:
    """The caller asked for more than its call type may cost."""
    with pytest.raises(InvalidRequest, match="is 201, over max_output_tokens_max 200"):
        check_size(a_request(max_output_tokens=201), CATALOGUE)


def test_one_input_token_too_many_is_refused() -> None:
    """The message says how the tokens were bounded: by bytes may be far above the truth."""
    with pytest.raises(
        InputTooLarge, match=r"101 tokens \(by utf8-bytes\), over input_tokens_max 100"
    ):
        check_gates(a_request(), CATALOGUE, TokenBound(101, "utf8-bytes"))


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
        check_gates(a_request(document_pages=4), CATALOGUE, TokenBound(101, "bpe-openai"))


def test_no_message_holds_prompt_text() -> None:
    """Errors are logged."""
    request = of_size("secret" * 10_000)

    with pytest.raises(InputTooLarge) as raised:
        check_size(request, CATALOGUE)

    assert "secret" not in str(raised.value)


def test_a_request_is_stored_up_to_its_bound() -> None:
    """However high a call type sets its limit of tokens: the ledger takes no more."""
    check_stored_bytes(b"x" * REQUEST_BYTES_MAX)

    with pytest.raises(InputTooLarge, match="33554433 bytes as JSON"):
        check_stored_bytes(b"x" * (REQUEST_BYTES_MAX + 1))
