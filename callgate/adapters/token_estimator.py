"""
An upper bound of a request's input tokens, found without any network.

OpenAI's own models are counted exactly, by OpenAI's published vocabularies as `bpe-openai` ships them, or by
`tiktoken` where that package is missing and tiktoken's cache already holds the vocabulary. Every other model's
tokenizer is unknown here, so its texts are bounded by their bytes (see `utf8_bound`).

bpe-openai comes first because it is linear. tiktoken 0.14 takes seconds for a few megabytes of one letter, and
panics on a megabyte of spaces. But linear may mean two seconds for a megabyte of dashes, in which no other thread of
the process runs, so neither counts a text of any length in one go.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from callgate.domain.catalogue import Catalogue
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from callgate.per_process import PerProcess

O200K, CL100K = "o200k_base", "cl100k_base"

# Source: tiktoken 0.14.0, tiktoken/model.py, read 2026-11-23. A fine-tuned model ("ft:...") has its base's vocabulary.
# What is not listed there (gpt-6, gpt-oss on other hosts, audio models) counts as unknown.
_O200K_MODELS = re.compile(
    r"(ft:)?(gpt-4o|chatgpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|o1|o3|o4)(?![a-z0-9])"
)
_CL100K_MODELS = re.compile(r"(ft:)?(gpt-4|gpt-3\.5)(?![a-z0-9.])")

# Source: OpenAI Cookbook, "How to count tokens with tiktoken", section 6: 3 tokens per message and 1 for its role
# (4 and 1 for the oldest model), and 3 that start the answer. It calls itself an estimate: the bounds leave room.
OPENAI_MESSAGE_TOKENS = 8
OPENAI_REQUEST_TOKENS = 32

# Chat templates wrap a message in at most a few special tokens, or in words such as "### Instruction:\n", and a
# SentencePiece vocabulary may put one space in front of it. The request's share is for templates that add a system
# prompt of their own: those are a few hundred tokens long (Mistral Small 3.2's is among the longest).
UNKNOWN_MESSAGE_TOKENS = 32
UNKNOWN_REQUEST_TOKENS = 1_024

SCHEMA_HEADING_TOKENS = 64
"""The heading a provider puts above a response schema. Source: OpenAI, "harmony" format, "Structured output"."""

TIKTOKEN_CHARS_MAX = 100_000
"""The longest text given to tiktoken: 75 ms at worst, far from its panics; longer ones are bounded by bytes."""

BPE_OPENAI_CHARS_MAX = 131_072
"""The longest piece given to bpe-openai: eight milliseconds of Chinese; longer ones are bounded by bytes."""

PIECE_CHARS = 8_192
"""Long texts are counted in pieces of about so many characters: bpe-openai lets no other thread run meanwhile."""

RULE_CHARS_MAX = 8_192
"""
The longest run of punctuation given to bpe-openai: a line of dashes takes a microsecond for each, a hundred times what
other text does. A piece with a longer one is bounded by bytes.
"""
_RULE = re.compile(r"(?:[^\w\s]|_)+")

# No token of either vocabulary goes on from a letter to a space, or from a line's end to anything but more white space
# or a slash: both split texts by a pattern first, which is in `tiktoken_ext/openai_public.py`.
_CUT = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=\n)(?=[^\s/])")


@dataclass(frozen=True, slots=True)
class _Counter:
    """Counts one text's tokens, or bounds them; special tokens' spelling in it is ordinary text."""

    method: str
    count: Callable[[str], int]
    message_tokens: int = OPENAI_MESSAGE_TOKENS
    request_tokens: int = OPENAI_REQUEST_TOKENS


class TokenEstimator:
    """
    Bounds a request's input tokens: exact counts where the vocabulary is known, else bytes; plus the framing.

    A model is OpenAI's own if the catalogue prices its provider as `openai`. Vocabularies are loaded at first use,
    once for each (0.1 s, 30 to 65 MB), so a process that never estimates never pays for them. Thread-safe.

    Warning: how a provider renders a response schema into its prompt is undocumented. It is bounded by one token
    per byte of the schema as an escaped JSON string: true of any rendering that does not repeat parts of it.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._counters: dict[str, _Counter | None] = {}
        self._loading = PerProcess(threading.Lock)

    def input_bound(self, request: LLMRequest) -> TokenBound:
        """Count to the end, in one go; see `counting`."""
        steps = self.counting(request, sys.maxsize)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                bound: TokenBound = end.value
                return bound

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """Never less than what the provider will count; see `TokenEstimatorPort`."""
        counter = self._counter_of(request.provider, request.model) or _UNKNOWN
        tokens = counter.message_tokens * len(request.messages) + counter.request_tokens
        tokens += _schema_bound(request.response_schema)
        for message in request.messages:
            for piece, is_whole in pieces(message.content):
                if tokens > stop_above:
                    break
                tokens += counter.count(piece) if is_whole else utf8_bound(piece)
                yield
        return TokenBound(tokens, counter.method)

    def _counter_of(self, provider: str, model: str) -> _Counter | None:
        entry = self._catalogue.providers.get(provider)
        if entry is None or (entry.pricing_provider or provider) != "openai":
            return None
        encoding = encoding_of(model)
        return self._counter(encoding) if encoding else None

    def _counter(self, encoding: str) -> _Counter | None:
        if encoding not in self._counters:
            with self._loading():
                if encoding not in self._counters:
                    self._counters[encoding] = load_bpe_openai(encoding) or load_tiktoken(encoding)
        return self._counters[encoding]


def encoding_of(model: str) -> str | None:
    """The name of the vocabulary of one of OpenAI's own models, or None if it is not known."""
    if _O200K_MODELS.match(model):
        return O200K
    return CL100K if _CL100K_MODELS.match(model) else None


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """
    Cut a long text where that changes no count; each piece comes with True.

    Where there is no such place for long, parts of what lies between two of them come with False: they cannot be
    counted, but bounded by their bytes, for the bytes of parts are the bytes of the whole.
    """
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = start + BPE_OPENAI_CHARS_MAX
        cut = _CUT.search(text, start + PIECE_CHARS, end)
        is_whole = cut is not None or end >= len(text)
        while cut is None and end < len(text):
            yield text[start:end], False
            start, end = end, end + PIECE_CHARS
            cut = _CUT.search(text, start, end)
        end = cut.start() if cut else len(text)
        yield text[start:end], is_whole
        start = end
    if start < len(text):
        yield text[start:], True


def utf8_bound(text: str) -> int:
    """
    Bound the tokens of a text under any tokenizer of a language model by its UTF-8 bytes.

    Byte-level BPE (GPT-2, Llama 3, Qwen, Mistral) starts from bytes and only ever merges. SentencePiece and its kin
    (Llama 2, Gemma) cover every character by pieces of one or more characters, and a character without a piece
    falls back to its bytes, or to one unknown token. So no tokenizer has more tokens than the bytes of what it reads.

    It may read a normalized text, and normalizing can lengthen it: NFC up to 3 times, NFKC up to 11 times (U+FDFA).
    NFC and NFKC are NFD and NFKD with characters composed, and no composed character has more bytes than its parts,
    so the longest of the text, its NFD and its NFKD bounds them all, by the Unicode version of this Python.
    """
    if text.isascii():
        return len(text)
    forms = (text, unicodedata.normalize("NFD", text), unicodedata.normalize("NFKD", text))
    return max(len(form.encode()) for form in forms)


_UNKNOWN = _Counter("utf8-bytes", utf8_bound, UNKNOWN_MESSAGE_TOKENS, UNKNOWN_REQUEST_TOKENS)


def _schema_bound(schema: str | None) -> int:
    return 0 if schema is None else len(json.dumps(schema)) + SCHEMA_HEADING_TOKENS


def load_bpe_openai(encoding: str) -> _Counter | None:
    """
    Count with the vocabulary inside the bpe-openai wheel, or None if it is not installed.

    Only the package's extension module is loaded. The package itself would build Python tables of three
    vocabularies at import: 1.4 s and 65 MB that counting does not need.
    """
    package = importlib.util.find_spec("bpe_openai")
    places = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("bpe_openai._bindings", places) if places else None
    if spec is None or spec.loader is None:
        return None
    bindings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bindings)
    exact = bindings.tokenizer_for_encoding(encoding).count

    def count(text: str) -> int:
        if len(text) > BPE_OPENAI_CHARS_MAX or _has_long_rule(text):
            return utf8_bound(text)
        return int(exact(text))

    return _Counter("bpe-openai", count)


def _has_long_rule(text: str) -> bool:
    return len(text) > RULE_CHARS_MAX and any(
        run.end() - run.start() > RULE_CHARS_MAX for run in _RULE.finditer(text)
    )


# The files tiktoken downloads, and their SHA-256. Source: tiktoken 0.14.0, tiktoken_ext/openai_public.py.
_TIKTOKEN_FILES = {
    O200K: (
        "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    CL100K: (
        "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}


def load_tiktoken(encoding: str) -> _Counter | None:
    """
    Count with tiktoken, or None unless its cache holds the right file: tiktoken would download it.

    tiktoken deletes a cached file with the wrong hash and downloads another, so the hash is checked here first.
    """
    if not _tiktoken_has_cached(encoding) or importlib.util.find_spec("tiktoken") is None:
        return None
    import tiktoken

    vocabulary = tiktoken.get_encoding(encoding)

    def count(text: str) -> int:
        if len(text) > TIKTOKEN_CHARS_MAX:
            return utf8_bound(text)
        return len(vocabulary.encode_ordinary(text))

    return _Counter("tiktoken", count)


def _tiktoken_has_cached(encoding: str) -> bool:
    """Look where `tiktoken.load.read_file_cached` looks (0.14.0): an empty variable switches its cache off."""
    url, sha256 = _TIKTOKEN_FILES[encoding]
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:
        return False
    cached = Path(folder) / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    try:
        return hashlib.sha256(cached.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
