"""The words that `docs/glossary.md` bans are in no name and, where it says so, in no prose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import banned_words as words
from tests.support.banned_words import Banned


def test_no_name_has_a_banned_word() -> None:
    found = list(words.found_in_names(words.all_files()))

    assert not found, f"{len(found)} names:\n" + "\n".join(found)


def test_no_prose_has_a_banned_word() -> None:
    found = list(words.found_in_prose(words.all_files()))

    assert not found, f"{len(found)} places:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("word", "name", "is_found"),
    [
        ("hut", "hut", True),
        ("hut", "my_hut", True),
        ("hut", "MyHuts", True),
        ("hut", "HUT_MAX_S", True),
        ("hut", "hutch", False),
        ("hut", "shut", False),
        ("bake", "is_baking", True),
        ("bake", "baked_at", True),
        ("fly", "time_flies", True),
        ("dig up", "dig_up_s", True),
        ("dig up", "dig_upper", False),
    ],
)
def test_names_are_split_into_words(word: str, name: str, is_found: bool) -> None:
    assert Banned(word, "names only").is_in_name(name) is is_found


def test_a_phrase_can_be_excepted() -> None:
    banned = Banned("hut", "names only", ("old hut",))

    assert not banned.is_in_name("old_huts")
    assert banned.is_in_name("new_hut")
    assert banned.without_exceptions("Old huts, a hut") == "........, a hut"


def test_a_whole_name_can_be_banned() -> None:
    banned = Banned("hut", "whole names only")

    assert banned.is_in_name("hut")
    assert banned.is_in_name("_hut")
    assert not banned.is_in_name("my_hut")


def test_python_has_names_and_prose() -> None:
    text = 'def f(a):\n    # one\n    # two\n    b.c = "x.y"\n    return "a text"\n'

    names, prose = words.read_python(text)

    assert {name for _, name in names} == {"f", "a", "c", "x.y"}
    assert prose == [(2, "# one\n# two"), (5, "a text")]


def test_sql_has_names_and_prose() -> None:
    names, ((_, comments),) = words.read_sql("-- one\n-- two\nSELECT a_b, 'x_y' -- three")

    assert {name for _, name in names} == {"SELECT", "a_b", "'x_y'"}
    assert "-- one\n-- two\n" in comments
    assert "a_b" not in comments


def test_files_are_named_with_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of two parts is found behind a line break too."""
    file = tmp_path / "old_hut.py"
    file.write_text('"""A text."""\n\n# We dig\n# up here.\nhuts = 1\n')
    monkeypatch.setattr(words, "CHECKOUT", tmp_path)
    banned = (Banned("hut", "names only"), Banned("dig up", "prose too"))
    monkeypatch.setattr(words, "banned_words", lambda: banned)

    assert list(words.found_in_names([file])) == [
        "old_hut.py:1: 'old_hut' has 'hut'",
        "old_hut.py:5: 'huts' has 'hut'",
    ]
    assert list(words.found_in_prose([file])) == ["old_hut.py:3: 'dig\\n  up'"]


def test_the_glossary_bans_something_and_files_are_read() -> None:
    """Otherwise the two tests above prove nothing."""
    assert len(words.banned_words()) > 20
    assert len(words.all_files()) > 300
