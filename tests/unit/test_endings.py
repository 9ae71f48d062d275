"""Which finish reasons are good, and which of several choices counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.endings import MEANINGS, Ending, ending_of, worst_of

REASONS = st.sampled_from([None, "", "stop", "eos", "odd", *MEANINGS]) | st.text(max_size=5)


@pytest.mark.parametrize(
    ("reason", "good_endings", "expected"),
    [
        ("stop", (), Ending.GOOD),
        ("Stop", (), Ending.GOOD),
        ("eos", (), Ending.UNKNOWN),
        ("EOS", ("eos",), Ending.GOOD),
        ("eos", ("EOS",), Ending.GOOD),
        (None, (), Ending.UNKNOWN),
        ("", (), Ending.UNKNOWN),
        (None, ("null",), Ending.GOOD),
        ("tool_calls", (), Ending.UNKNOWN),
        ("length", (), Ending.TRUNCATED),
        ("content_filter", ("content_filter",), Ending.FILTERED),
        ("error", ("error",), Ending.ABORTED),
        ("abort", (), Ending.ABORTED),
    ],
)
def test_finish_reasons_are_classified(
    reason: str | None, good_endings: tuple[str, ...], expected: Ending
) -> None:
    """`stop`, the catalogue's own ones, and those with a fixed meaning. All others are unknown."""
    assert ending_of(reason, good_endings) is expected


@given(st.lists(REASONS, min_size=1))
def test_the_worst_choice_counts(reasons: list[str | None]) -> None:
    """In any order."""
    worst = ending_of(worst_of(reasons))

    assert worst == max(map(ending_of, reasons))
    assert worst == ending_of(worst_of(reversed(reasons)))


def test_no_choices_have_no_ending() -> None:
    assert worst_of([]) is None


@pytest.mark.parametrize("reason", sorted(MEANINGS))
def test_no_catalogue_makes_a_bad_ending_good(reason: str) -> None:
    """Half an answer would be replayed to every duplicate."""
    with pytest.raises(ValidationError, match="its meaning is fixed"):
        ProviderEntry(good_endings=(reason.upper(),))


def test_an_unknown_provider_adds_no_good_endings() -> None:
    """A call may be read after its provider has left the catalogue."""
    assert Catalogue().good_endings("gone") == ()
    assert Catalogue().good_endings("openai") == ()
