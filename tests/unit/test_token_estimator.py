"""The bound of a request: which models are counted exactly, what framing and schema add, and where counting stops."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from callgate.adapters import token_estimator
from callgate.adapters.token_estimator import (
    CL100K,
    O200K,
    OPENAI_MESSAGE_TOKENS,
    OPENAI_REQUEST_TOKENS,
    TokenEstimator,
    encoding_of,
)
from tests.support.token_texts import (
    CATALOGUE,
    CUTTABLE,
    TEXTS,
    a_request,
    exact,
    the_end,
)


@pytest.fixture
def estimator() -> TokenEstimator:
    """An estimator that knows OpenAI, an alias of it, and a local server."""
    return TokenEstimator(CATALOGUE)


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", O200K),
        ("gpt-4o-mini-2024-07-18", O200K),
        ("chatgpt-4o-latest", O200K),
        ("gpt-4.1-nano", O200K),
        ("gpt-5", O200K),
        ("gpt-5.5-2026-04-23", O200K),
        ("o1", O200K),
        ("o3-mini", O200K),
        ("o4-mini", O200K),
        ("ft:gpt-4o-mini-2024-07-18:acme::id", O200K),
        ("gpt-4", CL100K),
        ("gpt-4-turbo", CL100K),
        ("gpt-3.5-turbo-0125", CL100K),
    ],
)
def test_models_have_the_vocabulary_that_tiktoken_says(model: str, encoding: str) -> None:
    assert encoding_of(model) == encoding
    assert tiktoken.encoding_name_for_model(model) == encoding


@pytest.mark.parametrize(
    "model", ["gpt-6-sol", "gpt-4.7", "gpt-oss-20b", "o12", "gemma-3-270m", "x-gpt-4o"]
)
def test_a_model_with_an_unknown_vocabulary_has_none(model: str) -> None:
    """A guess could be too low."""
    assert encoding_of(model) is None


def test_a_fine_tuned_model_has_its_base_models_vocabulary() -> None:
    """tiktoken 0.14 takes ft:gpt-4.1 for gpt-4."""
    assert encoding_of("ft:gpt-4.1-mini-2025-04-14:acme::id") == O200K


@pytest.mark.parametrize(
    ("provider", "model", "method"),
    [
        ("openai", "gpt-4o-mini", "bpe-openai"),
        ("openai-eu", "gpt-4o-mini", "bpe-openai"),
        ("openai", "gpt-6-sol", "utf8-bytes"),
        ("local", "gpt-4o-mini", "utf8-bytes"),
        ("local", "gemma-3-270m", "utf8-bytes"),
        ("unheard-of", "gpt-4o-mini", "utf8-bytes"),
    ],
)
def test_only_openais_own_models_are_counted_exactly(
    estimator: TokenEstimator, provider: str, model: str, method: str, no_network: None
) -> None:
    """A local model may have any name; its tokenizer is unknown."""
    assert estimator.input_bound(a_request(provider=provider, model=model)).method == method


def test_messages_are_counted_exactly_and_their_framing_is_bounded(
    estimator: TokenEstimator,
) -> None:
    """OpenAI documents 4 tokens per message and 3 per request. The bound is a little higher."""
    contents = ("You translate jargon.", "New synergies will help drive top-line growth.") * 20
    counted = sum(map(exact(O200K), contents))

    bound = estimator.input_bound(a_request(*contents)).tokens

    assert bound >= counted + 4 * len(contents) + 3
    assert bound == counted + OPENAI_MESSAGE_TOKENS * len(contents) + OPENAI_REQUEST_TOKENS


def test_a_special_token_in_a_text_is_ordinary_text(estimator: TokenEstimator) -> None:
    """`<|endoftext|>` counts as seven tokens."""
    empty = estimator.input_bound(a_request("x")).tokens - 1

    assert estimator.input_bound(a_request("<|endoftext|>")).tokens - empty == 7


@pytest.mark.parametrize("provider", ["openai", "local"])
def test_a_response_schema_adds_at_least_its_bytes(
    estimator: TokenEstimator, provider: str
) -> None:
    """How providers write the schema into the prompt is not documented."""
    schema = {
        "type": "object",
        "properties": {"straße": {"type": "string", "description": "汉" * 50}},
    }
    request = a_request(provider=provider, response_schema=schema)
    bare = estimator.input_bound(a_request(provider=provider)).tokens

    added = estimator.input_bound(request).tokens - bare

    assert added >= len(json.dumps(schema, separators=(",", ":")))
    assert added >= len((request.response_schema or "").encode())


def test_threads_share_one_vocabulary(estimator: TokenEstimator) -> None:
    with ThreadPoolExecutor(8) as threads:
        bounds = set(threads.map(lambda _: estimator.input_bound(a_request("same")), range(64)))

    assert bounds == {estimator.input_bound(a_request("same"))}


def test_counting_stops_at_the_limit(estimator: TokenEstimator) -> None:
    """Of eight megabytes a limit of 1,000 tokens needs the first few thousand characters."""
    request = a_request(*["An invoice of 1.234,56 EUR,\ndue in May. " * 20_000] * 10)

    steps = list(estimator.counting(request, 1_000))

    assert len(steps) == 1
    assert the_end(estimator.counting(request, 1_000)).tokens > 1_000


@pytest.mark.parametrize("provider", ["openai", "local"])
@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.one_of(TEXTS, CUTTABLE), min_size=1, max_size=4), limit=st.integers(0, 2_000)
)
def test_a_limit_changes_nothing_below_it(provider: str, texts: list[str], limit: int) -> None:
    """Below the limit counting goes to the end. Above it the count is over the limit."""
    estimator = TokenEstimator(CATALOGUE)
    request = a_request(*[text or "x" for text in texts], provider=provider)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_estimator, "PIECE_CHARS", 1)
        whole = estimator.input_bound(request)

        stopped = the_end(estimator.counting(request, limit))

    assert stopped == whole if whole.tokens <= limit else limit < stopped.tokens <= whole.tokens
