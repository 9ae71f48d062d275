"""The notes of a release come from the changelog."""

from __future__ import annotations

import pytest

from devkit.release import notes_of

CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\nNew.\n\n### A\n\n- a\n\n## [0.1.0] - 2026-11-29\n\nOld.\n"
)


@pytest.mark.parametrize(
    ("version", "notes"),
    [("0.2.0.dev0", "New.\n\n### A\n\n- a\n"), ("0.1.0", "Old.\n")],
)
def test_the_notes_are_the_section_of_the_version(version: str, notes: str) -> None:
    assert notes_of(CHANGELOG, version) == notes


def test_a_version_without_a_section_is_an_error() -> None:
    """Otherwise it would be released without notes."""
    with pytest.raises(ValueError, match=r"no section \[0\.2\.0\]"):
        notes_of(CHANGELOG, "0.2.0")
