"""Texts, requests and vocabularies for tests of the token estimator."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any, cast

from hypothesis import strategies as st

from callgate.adapters.token_estimator import (
    CL100K,
    O200K,
    load_bpe_openai,
)
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest

ENCODINGS = (O200K, CL100K)
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
"""Texts in which a wrong cut would change the count."""


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
    """The file that tiktoken would download, from the bpe-openai wheel."""
    package = importlib.util.find_spec("bpe_openai")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "data"
    return gzip.decompress((folder / f"{encoding}.tiktoken.gz").read_bytes())


@cache
def exact(encoding: str) -> Callable[[str], int]:
    """The exact counting function of one vocabulary."""
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


def the_end(counting: Generator[None, None, TokenBound]) -> TokenBound:
    """Run the steps of counting and return the bound."""
    while True:
        try:
            next(counting)
        except StopIteration as end:
            return cast(TokenBound, end.value)
