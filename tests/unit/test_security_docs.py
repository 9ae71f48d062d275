"""Each test that `docs/security.md` and `docs/guarantees.md` name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGES = tuple(TESTS.parent / "docs" / name for name in ("security.md", "guarantees.md"))
NAMED = re.compile(
    r"`((?:unit|contract|integration|acceptance|operations|migration|security|simulation|system|chaos)(?:/\w+)+\.py)?(?:::(test_\w+))?`"
)


def named() -> list[tuple[str, str | None]]:
    """Files and functions in the order of the pages. A function without a file belongs to the file before it."""
    found: list[tuple[str, str | None]] = []
    for page in PAGES:
        for match in NAMED.finditer(page.read_text("utf-8")):
            if match[1] or match[2]:
                found.append((match[1] or found[-1][0], match[2]))
    return found


@pytest.mark.parametrize(("file", "function"), sorted(set(named()), key=str))
def test_a_named_test_exists(file: str, function: str | None) -> None:
    text = (TESTS / file).read_text("utf-8")

    assert function is None or f"def {function}(" in text


def test_many_tests_are_named() -> None:
    """Otherwise the pattern above matches nothing."""
    assert len(named()) > 60
