"""Which names of a provider's are told, and that no spelling of a secret is one."""

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
def test_an_id_that_is_a_random_number_is_told(name: str) -> None:
    """Operators give it to the provider's support."""
    assert safe_codes.request_id(name) == name


def test_hardly_any_id_is_taken_for_a_text() -> None:
    """Random bytes seldom read well."""
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
def test_another_id_is_not_told(name: str | None) -> None:
    """It is in the stored reply all the same."""
    assert safe_codes.request_id(name) is None


@pytest.mark.parametrize("secret", [KEY, PROMPT], ids=["key", "prompt"])
def test_no_spelling_of_a_secret_is_a_name(secret: str) -> None:
    """Of an id, of a tier or of an ending; also behind a usual prefix."""
    for spelling in spellings(secret):
        for name in (spelling, f"req_{spelling}", f"chatcmpl-{spelling}", spelling[:32]):
            assert safe_codes.request_id(name) is None
            assert safe_codes.tier(name) == "unknown"
            assert safe_codes.finish_reason(name) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((tier.value, tier.value) for tier in ServiceTier),
        ("Standard", "standard"),
        ("turbo", "unknown"),
        ("", None),
        (None, None),
    ],
)
def test_a_tier_is_told_by_a_name_of_the_list(name: str | None, told: str | None) -> None:
    """Or it is an unknown one."""
    assert safe_codes.tier(name) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [("STOP", "stop"), ("eos", "eos"), (None, "null"), ("", "null"), ("The patient", None)],
)
def test_an_ending_is_told_by_a_name_of_the_list(name: str | None, told: str | None) -> None:
    """So that somebody can add it to `good_endings`."""
    assert safe_codes.finish_reason(name) == told
