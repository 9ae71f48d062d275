"""Which codes of a provider are shown: listed ones and random ids, and no spelling of a secret."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from callgate.domain import safe_codes
from callgate.domain.requests import ServiceTier
from tests.support.secret_spellings import KEY, PROMPT, spellings

HEX = "9f86d081884c7d659a2feaa0c55ad015"


@pytest.mark.parametrize(
    "name", [HEX, f"req_{HEX}", f"chatcmpl-{HEX}", HEX.upper(), str(UUID(HEX)), f"gen-{UUID(HEX)}"]
)
def test_a_random_id_is_shown(name: str) -> None:
    """Operators give it to the provider's support."""
    assert safe_codes.request_id(name) == name


def test_few_random_ids_are_taken_for_text() -> None:
    assert sum(safe_codes.request_id(str(uuid4())) is None for _ in range(2_000)) <= 3


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "req_1",
        HEX[1:],
        f"{HEX}0",
        f"evil_{HEX}",
        f" {HEX}",
        f"{HEX}\n",
        "req_011CSHoEeqs",
    ],
)
def test_any_other_id_is_hidden(name: str | None) -> None:
    """It stays in the stored reply."""
    assert safe_codes.request_id(name) is None


@pytest.mark.parametrize("secret", [KEY, PROMPT], ids=["key", "prompt"])
def test_no_spelling_of_a_secret_is_shown(secret: str) -> None:
    """As an id, a tier or a finish reason, also behind a usual prefix."""
    for spelling in spellings(secret):
        for name in (spelling, f"req_{spelling}", f"chatcmpl-{spelling}", spelling[:32]):
            assert safe_codes.request_id(name) is None
            assert safe_codes.tier(name) == "unknown"
            assert safe_codes.finish_reason(name) is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((tier.value, tier.value) for tier in ServiceTier),
        ("Standard", "standard"),
        ("turbo", "unknown"),
        ("", None),
        (None, None),
    ],
)
def test_a_known_tier_is_shown(name: str | None, shown: str | None) -> None:
    """Any other is `unknown`."""
    assert safe_codes.tier(name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [("STOP", "stop"), ("eos", "eos"), (None, "null"), ("", "null"), ("The patient", None)],
)
def test_a_known_finish_reason_is_shown(name: str | None, shown: str | None) -> None:
    """An operator can then add it to `good_endings`."""
    assert safe_codes.finish_reason(name) == shown
