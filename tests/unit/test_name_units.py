"""A name ends in its unit: `WAIT_MAX_S`, not the other way round."""

from __future__ import annotations

import re

import pytest

from tests.unit.test_sizes import CHECKOUT, FILES

LIMIT_AFTER_UNIT = re.compile(
    r"\b\w+_(?:ns|us|ms|s|minutes|hours|days|bytes|kb|kib|mib|nano_usd|usd)_(?:max|min)\b",
    re.IGNORECASE,
)
RENAMED_SETTINGS = CHECKOUT / "callgate/settings.py"
"""It has the old names of settings, to say the new ones."""
RELEASED = ("links_v1.sql", "make_partitions_v1.sql", "read_v1.sql")
"""Functions of release 0.1.0, which do not change."""


@pytest.mark.parametrize("name", ["WAIT_S_MAX", "p_bytes_max", "x.spent_nano_usd_min"])
def test_a_limit_after_its_unit_is_found(name: str) -> None:
    assert LIMIT_AFTER_UNIT.search(name)


@pytest.mark.parametrize("name", ["WAIT_MAX_S", "attempts_max", "seconds_max_s", "bits_max"])
def test_other_names_are_not_found(name: str) -> None:
    assert not LIMIT_AFTER_UNIT.search(name)


def test_no_limit_stands_after_its_unit() -> None:
    found = [
        f"{file.relative_to(CHECKOUT)}:{number}: {match[0]}"
        for file in FILES
        if file.name not in RELEASED and file not in (RENAMED_SETTINGS, CHECKOUT / __file__)
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        for match in LIMIT_AFTER_UNIT.finditer(line)
    ]

    assert not found, "\n".join(found)
