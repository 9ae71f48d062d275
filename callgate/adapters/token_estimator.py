"""
An upper bound of a request's input tokens, computed without network access.

Texts for OpenAI's own models are counted exactly with OpenAI's published vocabularies. `bpe-openai` contains them.
Without that package `tiktoken` is used, if its cache already has the vocabulary; without both, see `WithoutTokenizer`.
The tokenizers of other models are not known here, so their texts are bounded by their bytes (see `utf8_bound`).

bpe-openai comes first because its time is linear. tiktoken 0.14 takes seconds for a few megabytes of one letter and
panics on a megabyte of spaces. But bpe-openai still takes two seconds for a megabyte of dashes, and no other thread
runs meanwhile. So long texts are counted in pieces.
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
from enum import Enum
from importlib.machinery import PathFinder
from pathlib import Path

from callgate.domain.catalogue import Catalogue
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import asked, sent_schema
from callgate.per_process import PerProcess

O200K, CL100K = "o200k_base", "cl100k_base"
OPENAI_PRICED = frozenset({"openai", "azure"})
"""Who serves OpenAI's own models under their names, by their ids in genai-prices."""

LEFT_TO_WORKER = "left to the worker"
"""The method of a bound that was not counted."""

# Source: tiktoken 0.14.0, tiktoken/model.py, read 2026-11-23. A fine-tuned model ("ft:...") has its base's vocabulary.
# Models that are not listed there (gpt-6, gpt-oss on other hosts, audio models) count as unknown.
_O200K_MODELS = re.compile(
    r"(ft:)?(gpt-4o|chatgpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|o1|o3|o4)(?![a-z0-9])"
)
_CL100K_MODELS = re.compile(r"(ft:)?(gpt-4|gpt-3\.5)(?![a-z0-9.])")

# Source: OpenAI Cookbook, "How to count tokens with tiktoken", section 6: 3 tokens per message and 1 for its role
# (4 and 1 for the oldest model), and 3 that start the answer. It calls itself an estimate, so these bounds are higher.
OPENAI_MESSAGE_TOKENS = 8
OPENAI_REQUEST_TOKENS = 32

# A chat template wraps a message in a few special tokens, or in words like "### Instruction:\n". A SentencePiece
# vocabulary may add one space in front. Some templates add a system prompt of their own to the request: a few hundred
# tokens (Mistral Small 3.2's is among the longest).
UNKNOWN_MESSAGE_TOKENS = 32
UNKNOWN_REQUEST_TOKENS = 1_024

SCHEMA_HEADING_TOKENS = 64
"""The heading above a response schema in OpenAI's prompt. Source: OpenAI, "harmony" format, "Structured output"."""

TOOLS_HEADING_TOKENS = 1_024
"""
What a provider writes above tools, or above a schema that it takes as a tool. Anthropic's is the longest known.

It has 804 tokens (Claude Opus 4.7, `any` or `tool`; Opus 5 has 406). Source: platform.claude.com, "Tool use with
Claude", pricing, read 2026-11-29 in a copy that does not name Opus 5.5 and Haiku 5.5 yet.
"""
FRAME_TOKENS = 64
"""
What a provider writes around each text of a tool, a tool call or its result: names of fields, quotes, tags.

A tool has three texts. Its longest known frame, `{"type": "function", "function": {"name": ...` as indented JSON, has
fewer than 160 bytes, so the bound needs no tokenizer.
"""
INDENT = 4
"""Spaces per level of JSON in a prompt. Llama 3.1's chat template has `tojson(indent=4)`, others have less."""
OUTER_LEVELS = 3
"""How deep a tool's parameters are in such JSON: list, tool, function."""
_JSON_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+\\?(?:"|\Z)|[{}\[\],:]', re.DOTALL)
"""A string as a whole, also one without an end, or a mark between values."""

TIKTOKEN_CHARS_MAX = 100_000
"""The longest text given to tiktoken: 75 ms at most, and far from its panics. Longer ones are bounded by bytes."""

BPE_OPENAI_CHARS_MAX = 131_072
"""The longest piece given to bpe-openai: 8 ms for Chinese. Longer ones are bounded by bytes."""

PIECE_CHARS = 8_192
"""Approximate length of a piece: bpe-openai holds the GIL while it counts one."""

PUNCTUATION_CHARS_MAX = 8_192
"""
The longest run of punctuation given to bpe-openai. A line of dashes takes 1 µs per character, a hundred times more than
other text. A piece with a longer run is bounded by bytes.
"""
_PUNCTUATION = re.compile(r"(?:[^\w\s]|_)+")

# A cut at these places changes no count. Both vocabularies first split a text by a pattern, and no token continues from
# a letter to a space, or from a line end to anything but white space or a slash: `tiktoken_ext/openai_public.py`.
_CUT = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=\n)(?=[^\s/])")


class WithoutTokenizer(Enum):
    """What is done about a text whose vocabulary is known, but not installed: it has about four bytes per token."""

    BOUND = "bound"
    """Bound by its bytes: for a worker, whose bound becomes the hold."""
    BOUND_WITHIN_LIMIT = "bound within limit"
    """The same, but not above the call type's limit, which the worker's count will not exceed: for an estimate."""
    LEAVE = "leave"
    """Not counted: the bound is 0, and the worker's count decides. For a client."""


@dataclass(frozen=True, slots=True)
class _Counter:
    """Counts or bounds the tokens of one text. Special tokens in it are counted as ordinary text."""

    method: str
    count: Callable[[str], int]
    message_tokens: int = OPENAI_MESSAGE_TOKENS
    request_tokens: int = OPENAI_REQUEST_TOKENS
    is_exact: bool = True


class TokenEstimator:
    """
    `TokenEstimatorPort`: exact counts for known vocabularies, else bytes, plus the framing of messages.

    A model counts as OpenAI's own if the catalogue prices its provider as `openai` or `azure`. A vocabulary is loaded
    at its first use (0.1 s, 30 to 65 MB). Thread-safe.

    Warning: how a provider writes a response schema or a tool into its prompt is mostly not documented. The bound of
    such a text is its bytes as indented and escaped JSON (see `framed_bound`), also where `method` says that messages
    are counted exactly. It holds for every rendering that repeats no part of the text.
    """

    def __init__(
        self, catalogue: Catalogue, without: WithoutTokenizer = WithoutTokenizer.BOUND
    ) -> None:
        self._catalogue = catalogue
        self._without = without
        self._counters: dict[str, _Counter | None] = {}
        self._loading = PerProcess(threading.Lock)

    def input_bound(self, request: LLMRequest) -> TokenBound:
        """The bound for the whole request, computed at once; see `counting`."""
        steps = self.counting(request, sys.maxsize)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                bound: TokenBound = end.value
                return bound

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """A bound in steps, never less than the provider will count unless `stop_above` is reached; see the port."""
        vocabulary = self._vocabulary_of(request.provider, request.model)
        counter = (vocabulary and self._counter(vocabulary)) or _UNKNOWN
        is_missing = vocabulary is not None and counter is _UNKNOWN
        if is_missing and self._without is WithoutTokenizer.LEAVE:
            return TokenBound(0, LEFT_TO_WORKER)
        entry = self._catalogue.providers.get(request.provider)
        sent = entry and sent_schema(request, entry)
        request = asked(request, entry) if entry else request
        tokens = counter.message_tokens * len(request.messages) + counter.request_tokens
        schema = sent.text if sent else request.response_schema
        if schema is not None:
            tokens += framed_bound(schema)
            tokens += SCHEMA_HEADING_TOKENS if counter.is_exact else TOOLS_HEADING_TOKENS
        tokens += TOOLS_HEADING_TOKENS if request.tools else 0
        for text in request.framed_texts():
            if tokens > stop_above:
                break
            # Its length is enough to say that the limit is reached; the exact bound takes longer.
            is_over = tokens + len(text) > stop_above
            tokens += len(text) if is_over else framed_bound(text)
            yield
        for message in request.messages:
            for piece, is_whole in pieces(message.content):
                if tokens > stop_above:
                    break
                tokens += counter.count(piece) if is_whole else utf8_bound(piece)
                yield
        if is_missing and self._without is WithoutTokenizer.BOUND_WITHIN_LIMIT:
            tokens = min(tokens, stop_above)
        return TokenBound(tokens, counter.method)

    def _vocabulary_of(self, provider: str, model: str) -> str | None:
        """The vocabulary of a model; None if it is not known."""
        entry = self._catalogue.providers.get(provider)
        if entry is None or (entry.pricing_provider or provider) not in OPENAI_PRICED:
            return None
        return encoding_of(entry.priced_model(model))

    def _counter(self, encoding: str) -> _Counter | None:
        """The counter of a vocabulary, loaded once; None if it cannot be loaded."""
        if encoding not in self._counters:
            with self._loading():
                if encoding not in self._counters:
                    self._counters[encoding] = load_bpe_openai(encoding) or load_tiktoken(encoding)
        return self._counters[encoding]


def encoding_of(model: str) -> str | None:
    """The vocabulary of an OpenAI model (`o200k_base` or `cl100k_base`), or None if it is not known."""
    if _O200K_MODELS.match(model):
        return O200K
    return CL100K if _CL100K_MODELS.match(model) else None


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """
    Split a text into pieces of about `PIECE_CHARS`, each with True if its tokens can be counted separately.

    Pieces are cut where a cut changes no count. A stretch without such a place that is longer than
    `BPE_OPENAI_CHARS_MAX` is split into pieces with False. Their counts cannot be added up, but their bytes can.
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

    Byte-level BPE (GPT-2, Llama 3, Qwen, Mistral) starts with bytes and only merges them. SentencePiece and similar
    tokenizers (Llama 2, Gemma) use pieces of one or more characters; a character without a piece becomes its bytes or
    one unknown token. So no tokenizer makes more tokens than its input has bytes.

    A tokenizer may normalize the text first, which can lengthen it: NFC up to 3 times, NFKC up to 11 times (U+FDFA).
    NFC and NFKC are composed forms of NFD and NFKD, and a composed character never has more bytes than its parts. So
    the longest of the text, its NFD and its NFKD is a bound for all forms, in the Unicode version of this Python.
    """
    if text.isascii():
        return len(text)
    forms = (text, unicodedata.normalize("NFD", text), unicodedata.normalize("NFKD", text))
    return max(len(form.encode()) for form in forms)


def framed_bound(text: str) -> int:
    """
    Bound the tokens of a text that a provider writes into its prompt in a way of its own, by bytes.

    It may be written as it is, as a string of JSON (with escapes), or as JSON over many lines.
    """
    return max(len(json.dumps(text)), utf8_bound(text)) + _layout_bytes(text) + FRAME_TOKENS


def _layout_bytes(text: str) -> int:
    """The bytes of line ends, indents and spaces that JSON over many lines has more than compact JSON."""
    depth, added = OUTER_LEVELS, 0
    for match in _JSON_MARKS.finditer(text):
        mark = match[0]
        if mark == ":":
            added += 1
        elif mark in "{[":
            depth += 1
            added += 1 + INDENT * depth
        elif mark in "}]":
            depth = max(depth - 1, 0)
            added += 1 + INDENT * depth
        elif mark == ",":
            added += 1 + INDENT * depth
    return added


_UNKNOWN = _Counter(
    "utf8-bytes", utf8_bound, UNKNOWN_MESSAGE_TOKENS, UNKNOWN_REQUEST_TOKENS, is_exact=False
)


def load_bpe_openai(encoding: str) -> _Counter | None:
    """
    A counter with the vocabulary of the bpe-openai wheel; None if the package is not installed.

    Only its extension module is loaded. The package's `__init__` would build Python tables of three vocabularies, which
    takes 1.4 s and 65 MB and is not needed for counting.
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
        if len(text) > BPE_OPENAI_CHARS_MAX or _has_long_punctuation(text):
            return utf8_bound(text)
        return int(exact(text))

    return _Counter("bpe-openai", count)


def _has_long_punctuation(text: str) -> bool:
    """True if a run of punctuation is longer than `PUNCTUATION_CHARS_MAX`."""
    return len(text) > PUNCTUATION_CHARS_MAX and any(
        run.end() - run.start() > PUNCTUATION_CHARS_MAX for run in _PUNCTUATION.finditer(text)
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
    A counter with tiktoken; None if its cache lacks the vocabulary, because tiktoken would download it.

    tiktoken also replaces a cached file with a wrong hash by a download, so the hash is checked here first.
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
    """True if tiktoken's cache has the intact file. Source: `tiktoken.load.read_file_cached` (0.14.0)."""
    url, sha256 = _TIKTOKEN_FILES[encoding]
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:
        # An empty variable switches the cache off.
        return False
    cached = Path(folder) / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    try:
        return hashlib.sha256(cached.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
