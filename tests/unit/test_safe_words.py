"""What is kept of a provider's error: no spelling of a key or a prompt, and only words from lists."""

from __future__ import annotations

import re

import pytest

from callgate.adapters.providers.http.error_body import KNOWN_NAMES
from callgate.adapters.providers.http.safe_words import HINTS, PARAMETERS, SENTENCES
from tests.support.openai_failures import refusal
from tests.support.secret_spellings import KEY, PROMPT, spellings

FIELDS = (
    *("message", "code", "type", "param", "status", "error_code", "detail", "request_id"),
    *("reason", "errors", "error", "metadata"),
)


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 413, 422, 429, 500])
@pytest.mark.parametrize("secret", [KEY, PROMPT], ids=["key", "prompt"])
def test_no_spelling_of_a_secret_is_kept(status: int, secret: str) -> None:
    """In no field of an error, and in none of its headers."""
    clean = refusal(status, {"message": "no"}).to_json()
    for spelling in spellings(secret):
        for error in (dict.fromkeys(FIELDS, spelling), {"message": [spelling]}, spelling):
            failure = refusal(status, error)
            assert failure.to_json() == clean, spelling


def test_a_refusals_message_has_listed_words_only() -> None:
    words = set(re.findall(r"[A-Za-z_]+", " ".join([*SENTENCES.values(), *dict(HINTS).values()])))
    words |= {"HTTP", "param", *KNOWN_NAMES, *PARAMETERS}
    for spelling in [*spellings(KEY), *spellings(PROMPT)]:
        for name in ("invalid_value", "InvalidApiKey"):
            error = {"message": f"unsupported {spelling}", "code": name, "type": spelling}
            shown = refusal(400, error).message
            assert set(re.findall(r"[A-Za-z_]+", shown)) <= words


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("invalid_value", "invalid_value"),
        ("InvalidValue", "invalid_value"),
        ("Invalid Value", "invalid_value"),
        ("sk-12345678", None),
        ("Rumpelstilzchen", None),
        ("x" * 65, None),
        ("", None),
        (["invalid_value"], None),
        (1300, None),
    ],
)
def test_only_a_listed_code_is_kept(name: object, shown: str | None) -> None:
    """A prompt of one word looks like a code."""
    assert refusal(400, {"code": name}).provider_code == shown
