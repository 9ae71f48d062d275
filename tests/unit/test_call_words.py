"""The words of a search for calls: what they mean, and what is said of wrong ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.call_pages import Position
from callgate.domain.call_words import TEXT_CHARS_MAX, WORDS, parse_words, words_of
from callgate.domain.calls import AttemptKind, AttemptStatus, CallKey, CallState
from callgate.domain.errors import InvalidWords
from callgate.domain.reports import CallFilter

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
CALL = UUID("7c1f0a52-0000-4000-8000-0000000000e2")
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NAMES = st.text(CHARACTERS, min_size=1, max_size=40)
TIMES = st.timedeltas(timedelta(days=-9_000), timedelta(days=9_000)).map(lambda t: NOW + t)
FILTERS = st.builds(
    CallFilter,
    org_id=st.none() | NAMES,
    call_type=st.none() | NAMES,
    provider=st.none() | NAMES,
    model=st.none() | NAMES,
    state=st.none() | st.sampled_from(CallState),
    reason=st.none() | NAMES,
    error_fingerprint=st.none() | NAMES,
    trace_id=st.none() | NAMES,
    call_ids=st.just(()) | st.uuids().map(lambda uuid: (uuid,)),
    since=st.none() | TIMES,
    tier=st.none() | st.just("") | NAMES,
    kind=st.none() | st.sampled_from(AttemptKind).map(str),
    outcome=st.none() | st.sampled_from(AttemptStatus).map(str),
)


def read(text: str) -> CallFilter:
    """What words mean at noon."""
    return parse_words(text, now=NOW)


def complaint(text: str) -> str:
    """What is said of wrong words."""
    with pytest.raises(InvalidWords) as caught:
        read(text)
    return str(caught.value)


@given(FILTERS)
def test_what_is_written_is_read_back(which: CallFilter) -> None:
    assert read(words_of(which)) == which


@given(st.text(max_size=300))
def test_any_text_is_read_or_complained_about_on_one_line(text: str) -> None:
    try:
        which = read(text)
    except InvalidWords:
        said = complaint(text)
        assert said.isprintable()
        assert len(said) < 300
    else:
        assert read(words_of(which)) == which


@given(FILTERS, st.randoms(use_true_random=False))
def test_order_and_spaces_do_not_matter(which: CallFilter, random: object) -> None:
    one = replace(which, model=None, org_id="acme", call_ids=(CALL,))
    words = words_of(one).split(" ") if '"' not in words_of(one) else ["org:acme"]
    random.shuffle(words)  # type: ignore[attr-defined]

    assert read(f"  {'   '.join(words)}\t") == read(" ".join(sorted(words)))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", CallFilter()),
        ("org:acme state:dead", CallFilter("acme", CallState.DEAD)),
        ("ORG:acme State:DEAD", CallFilter("acme", CallState.DEAD)),
        ("model:ft:gpt-4o:acme", CallFilter(model="ft:gpt-4o:acme")),
        ('model:"the model"', CallFilter(model="the model")),
        (r'model:"a \"b\" \\c"', CallFilter(model=r'a "b" \c')),
        ('model:a"b', CallFilter(model='a"b')),
        ('tier:""', CallFilter(tier="")),
        ("tier:", CallFilter(tier="")),
        ("reason:retry", CallFilter(reason="retry")),
        ("fp:3f9a trace:t-1", CallFilter(error_fingerprint="3f9a", trace_id="t-1")),
        (f"id:{CALL}", CallFilter(call_ids=(CALL,))),
        (f"{CALL}", CallFilter(call_ids=(CALL,))),
        (f"{CALL}.2 org:a", CallFilter("a", call_ids=(CALL,), generation=2)),
        ("since:2h", CallFilter(since=NOW - timedelta(hours=2))),
        ("since:90m until:7M", CallFilter(since=NOW - timedelta(minutes=90), until=NOW - timedelta(minutes=7))),
        ("since:2026-11-29", CallFilter(since=datetime(2026, 11, 29, tzinfo=UTC))),
        ("until:2026-11-29T08:00+02:00", CallFilter(until=datetime(2026, 11, 29, 6, tzinfo=UTC))),
    ],
)  # fmt: skip
def test_words_narrow(text: str, meant: CallFilter) -> None:
    assert read(text) == meant


def test_a_time_without_a_zone_is_one_of_the_reader() -> None:
    zone = timezone(timedelta(hours=2))

    which = parse_words("since:2026-11-29 until:2026-11-29T10:00", now=NOW, zone=zone)

    assert which.since == datetime(2026, 11, 28, 22, tzinfo=UTC)
    assert which.until == datetime(2026, 11, 29, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acme", "acme needs a name before it, such as org:acme"),
        ("colour:red", "there is no word colour: the words are"),
        ("org:a org:b", "org: is given twice"),
        ("org:", "org: needs a value"),
        ("state:broken", "state:broken is none of queued, running, waiting, succeeded, dead"),
        ("kind:other", "kind:other is none of first"),
        ("outcome:paid", "outcome:paid is none of dispatched"),
        ('org:"acme', 'the quotes of "acme are not closed'),
        ('org:"acme"x', 'after the quotes of "acme" a space is missing'),
        ("id:7", "id:7 is no id of a call or task"),
        (f"id:{CALL}.0", "is no id"),
        ("since:yesterday", "since:yesterday is no time; write 2026-11-30"),
        ("since:999999d", "since: is at most 3650 days ago"),
        ("since:1h until:2h", "since: must be before until:"),
        (f"model:{'x' * 129}", "model: has at most 128 characters"),
        ("x" * (TEXT_CHARS_MAX + 1), "a search has at most 2000 characters"),
        ("model:\0", "has a character that no name can have"),
    ],
)
def test_wrong_words_are_explained(text: str, said: str) -> None:
    assert said in complaint(text)


def test_every_word_has_a_meaning_and_an_example() -> None:
    for word in WORDS.values():
        assert word.meaning.endswith(".")
        if word.name != "id":
            assert read(f"{word.name}:{word.example}") != CallFilter()


@given(st.uuids(), st.integers(1, 99), TIMES)
def test_a_position_survives_a_url(call_id: UUID, generation: int, at: datetime) -> None:
    position = Position(at, CallKey(call_id, generation))

    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text", ["", "~", "2026-11-30~x", f"9~{CALL}.1", "0001-01-01T00:00+14:00~x"]
)
def test_what_is_no_position_says_so(text: str) -> None:
    with pytest.raises(InvalidWords, match="go to the newest"):
        Position.parse(text)
