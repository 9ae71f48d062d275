"""
Keeps keys and prompt text out of what is stored about a failure: providers quote both in their errors.

Whatever is quoted, escaped, outside ASCII or long enough to be a token is masked, and so is every run of
characters that also occurs in a secret.

Warning: fewer than `RUN_CHARS` characters of a longer secret can pass, if the provider neither quotes nor encodes them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator

MASK = "***"
RUN_CHARS = 8
"""A run this long that message and secret share is taken for a quotation."""
WHOLE_CHARS_MIN = 4
"""A secret shorter than a run is masked as a whole, unless it is shorter than this."""
WORDS_CHARS_MAX = 300
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]-]{0,63}")
SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""A provider may quote in letters of another size; what is not ASCII is masked anyway."""
_SUSPICIOUS = re.compile(
    r"""
      "[^"]*"?  |  `[^`]*`?  |  (?<!\w)'[^']*'?      # quotations, closed or cut off
    | \\.\S*                                          # escapes
    | [^\x20-\x7e]+                                   # anything but printable ASCII
    | \S*(?:sk-|\*\*|[Bb]earer)\S*(?:\s+\S+)?         # keys, and keys half masked by the provider
    | \S{25,}                                         # tokens, addresses, encoded text
    """,
    re.VERBOSE,
)


class Redactor:
    """
    Masks what could be private in a provider's words.

    Args:
        secrets: Keys and texts no part of which may be kept. Short quotations of them are found whatever
            their line breaks.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        lines = [_one_line(secret) for secret in secrets]
        long = "\0".join(line for line in lines if len(line) >= RUN_CHARS)
        self._texts = [line for line in lines if WHOLE_CHARS_MIN <= len(line) < RUN_CHARS]
        self._texts += [long] if long else []
        self._texts = [text.translate(SMALL) for text in self._texts]

    def words(self, words: str) -> str:
        """The provider's words, cut to `WORDS_CHARS_MAX` characters and without any secret in them."""
        words = _one_line(words[:WORDS_CHARS_MAX])
        hidden = bytearray(len(words))
        for start, end in self._private(words):
            hidden[start:end] = b"\x01" * (end - start)
        shown = "".join("\0" if h else c for c, h in zip(words, hidden, strict=True))
        return re.sub(r"\0+", MASK, shown)

    def identifier(self, name: object) -> str | None:
        """A code, type or parameter as the provider names it; None if it is anything else."""
        if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
            return None
        return None if "sk-" in name or any(self._shared(name)) else name

    def _private(self, words: str) -> Iterator[tuple[int, int]]:
        for match in _SUSPICIOUS.finditer(words):
            yield match.span()
        yield from self._shared(words)

    def _shared(self, words: str) -> Iterator[tuple[int, int]]:
        """Where the words hold a run of a secret, or the whole of a short one."""
        words = words.translate(SMALL)
        for text in self._texts:
            size = min(len(text), RUN_CHARS)
            for start in range(len(words) - size + 1):
                if words[start : start + size] in text:
                    yield start, start + size


def _one_line(text: str) -> str:
    """The text with every space a single one: a quotation may be wrapped differently."""
    return " ".join(text.split())
