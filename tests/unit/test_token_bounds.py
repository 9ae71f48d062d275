"""Bounds by bytes, and counting in pieces: never below the exact count, and never slow."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callgate.adapters import token_estimator
from callgate.adapters.token_estimator import (
    CL100K,
    O200K,
    PUNCTUATION_CHARS_MAX,
    TokenEstimator,
    load_bpe_openai,
    pieces,
    utf8_bound,
)
from callgate.domain.gates import TOKEN_MAX_BYTES
from tests.support.token_texts import (
    CATALOGUE,
    CUTTABLE,
    ENCODINGS,
    TEXTS,
    a_request,
    exact,
)


@pytest.fixture
def estimator() -> TokenEstimator:
    """An estimator that knows OpenAI, an alias of it, and a local server."""
    return TokenEstimator(CATALOGUE)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\ufdfa" * 10)
@example("aA" * 50)
@example("")
def test_no_text_has_more_tokens_than_its_byte_bound(text: str) -> None:
    """Checked with the vocabularies that are available."""
    bound = utf8_bound(text)

    assert exact(O200K)(text) <= bound
    assert exact(CL100K)(text) <= bound


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\ufdfa\u0344\u1100\u1161\u11a8")
def test_the_byte_bound_covers_every_normal_form(text: str) -> None:
    """A tokenizer may normalize first. NFKC turns one character into up to 33 bytes."""
    longest = max(
        len(unicodedata.normalize(form, text).encode()) for form in ("NFC", "NFD", "NFKC", "NFKD")
    )

    assert longest <= utf8_bound(text)


def test_no_composed_character_has_more_bytes_than_its_parts() -> None:
    """So NFD and NFKD bound NFC and NFKC. Checked for all of Unicode."""
    every = (chr(code) for code in range(sys.maxunicode + 1))
    composed = [char for char in every if unicodedata.decomposition(char)]

    for char in composed:
        nfc, nfd = unicodedata.normalize("NFC", char), unicodedata.normalize("NFD", char)
        nfkc, nfkd = unicodedata.normalize("NFKC", char), unicodedata.normalize("NFKD", char)
        assert len(nfc.encode()) <= len(nfd.encode()), hex(ord(char))
        assert len(nfkc.encode()) <= len(nfkd.encode()), hex(ord(char))


@pytest.mark.parametrize("char", ["a", "A", " ", "\n", "!", "0", "\u0301", "汉"])
def test_a_megabyte_of_one_character_is_counted_in_linear_time(
    estimator: TokenEstimator, char: str
) -> None:
    """5 s is far above linear and far below quadratic. tiktoken panics on spaces and takes seconds for letters."""
    text = char * (1_000_000 // len(char.encode()))
    begun = time.monotonic()

    bound = estimator.input_bound(a_request(text)).tokens

    assert bound * TOKEN_MAX_BYTES >= len(text.encode())
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.one_of(TEXTS, CUTTABLE), max_size=8))
def test_a_text_in_pieces_has_the_same_count(encoding: str, texts: list[str]) -> None:
    """Otherwise a bound could be too small, or the worker's could differ from the client's."""
    text, count = "".join(texts), exact(encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_estimator, "PIECE_CHARS", 1)
        cut = [piece for piece, _ in pieces(text)]

    assert "".join(cut) == text
    assert sum(map(count, cut)) == count(text)


def test_an_ordinary_text_is_cut_into_short_pieces() -> None:
    """No other thread runs while a piece is counted."""
    text = "An invoice of 1.234,56 EUR,\ndue in May. " * 10_000

    assert max(len(piece) for piece, _ in pieces(text)) < token_estimator.PIECE_CHARS + 100


def test_no_text_blocks_other_threads_for_long() -> None:
    """Counting 16 MB of dashes at once took half a minute, longer than a lease, and lost every call in flight."""
    counter = load_bpe_openai(O200K)
    assert counter is not None
    begun = time.process_time()
    assert counter.count("-" * PUNCTUATION_CHARS_MAX) < PUNCTUATION_CHARS_MAX
    assert counter.count("_" * PUNCTUATION_CHARS_MAX + "a") < PUNCTUATION_CHARS_MAX
    assert time.process_time() - begun < 0.2
    begun = time.process_time()
    for long in ("-" * (PUNCTUATION_CHARS_MAX + 1), "-_" * PUNCTUATION_CHARS_MAX, "-" * 16 * 2**20):
        assert counter.count(long) == len(long)
    assert time.process_time() - begun < 1.5


def test_a_text_without_cuts_is_bounded_in_steps(estimator: TokenEstimator) -> None:
    """By its bytes, normalized: the bytes of the parts add up to those of the whole."""
    text = "\ufdfa汉e\u0301" * 60_000

    with_parts = estimator.input_bound(a_request(text, provider="local"))

    assert [is_whole for _, is_whole in pieces(text)].count(False) > 5
    assert "".join(piece for piece, _ in pieces(text)) == text
    bare = estimator.input_bound(a_request("x", provider="local")).tokens - 1
    assert utf8_bound(text) <= with_parts.tokens - bare <= utf8_bound(text) + 4 * 100
