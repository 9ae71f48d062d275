"""Exact counts: the vocabularies of bpe-openai and tiktoken, and where tiktoken's is found."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

from callgate.adapters import token_estimator
from callgate.adapters.token_estimator import (
    CL100K,
    O200K,
    OPENAI_MESSAGE_TOKENS,
    OPENAI_REQUEST_TOKENS,
    TokenEstimator,
    load_tiktoken,
)
from callgate.domain.gates import TOKEN_MAX_BYTES
from tests.support.token_texts import (
    CATALOGUE,
    ENCODINGS,
    TEXTS,
    a_request,
    exact,
    vocabulary,
)

URLS = {
    name: f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    for name in ENCODINGS
}
SHA256 = {
    O200K: "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    CL100K: "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}


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
    """bpe-openai has the same file that tiktoken downloads."""
    assert hashlib.sha256(vocabulary(encoding)).hexdigest() == SHA256[encoding]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_token_is_longer_than_the_gate_on_bytes_assumes(encoding: str) -> None:
    longest = max(
        len(base64.b64decode(line.split()[0])) for line in vocabulary(encoding).splitlines()
    )

    assert longest == TOKEN_MAX_BYTES


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
def test_bpe_openai_and_tiktoken_count_alike(
    encoding: str, cached_vocabularies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cached_vocabularies))
    by_tiktoken = load_tiktoken(encoding)
    assert by_tiktoken is not None

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def alike(text: str) -> None:
        assert exact(encoding)(text) == by_tiktoken.count(text)

    alike()


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_without_bpe_openai_a_cached_tiktoken_counts(
    estimator: TokenEstimator,
    without_bpe_openai: None,
    tiktoken_cache: Callable[[str, str], None],
    cached_vocabularies: Path,
    variable: str,
) -> None:
    """Without network access."""
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
    """tiktoken would download a missing vocabulary."""
    tiktoken_cache("TIKTOKEN_CACHE_DIR", str(tmp_path))

    bound = estimator.input_bound(a_request("tiktoken is great!"))

    assert bound.method == "utf8-bytes"
    assert bound.tokens >= len("tiktoken is great!")


def test_an_empty_cache_variable_switches_tiktokens_cache_off(
    tiktoken_cache: Callable[[str, str], None],
    cached_vocabularies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """tiktoken would then download the file, so it is not used."""
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
