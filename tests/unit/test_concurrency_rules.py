"""How many calls of an organisation run at a time: the rule as properties."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.catalogue import Catalogue
from callgate.domain.concurrency import CallsOf, ConcurrencyRule, Places

TYPES = "abc"
AMOUNTS = st.none() | st.integers(1, 4)
COUNTS = st.dictionaries(st.sampled_from(TYPES), st.integers(0, 3))
LINES = st.lists(st.sampled_from(TYPES), max_size=12)


@st.composite
def all_places(draw: st.DrawFn) -> Places:
    """What may be declared."""
    rules = [
        ConcurrencyRule(calls_of, name, draw(AMOUNTS))
        for calls_of, names in ((CallsOf.ORGANISATION, ("acme", "")), (CallsOf.CALL_TYPE, "ab"))
        for name in names
        if draw(st.booleans())
    ]
    return Places("acme", tuple(rules))


def exceeds(places: Places, running: Counter[str]) -> bool:
    """Whether more calls run than may."""
    is_total = places.total_max is not None and running.total() > places.total_max
    return is_total or any(running[t] > (places.type_max(t) or 99) for t in TYPES)


@given(all_places(), LINES, LINES)
def test_no_more_are_let_through_than_may_run(places: Places, calls: str, line: str) -> None:
    """One after the other, and although others wait."""
    running: Counter[str] = Counter()
    for call_type in calls:
        if places.refusal_of(call_type, running, Counter(line)) is None:
            running[call_type] += 1
        assert not exceeds(places, running)


@given(all_places(), COUNTS, st.sampled_from(TYPES))
def test_a_call_that_has_waited_is_refused_only_if_it_does_not_fit(
    places: Places, running: dict[str, int], call_type: str
) -> None:
    with_it = Counter(running) + Counter([call_type])
    own_max = places.type_max(call_type)
    fits = own_max is None or with_it[call_type] <= own_max
    fits = fits and (places.total_max is None or with_it.total() <= places.total_max)

    assert (places.refusal_of(call_type, running, {}) is None) is fits


@given(all_places(), LINES, LINES)
def test_those_that_are_woken_find_a_place(places: Places, running: str, line: str) -> None:
    """All of them, and nobody else of the line would: no herd, and no place is left free."""
    taken = Counter(running)
    chosen = places.next_of(line, running)

    for n in chosen:
        assert places.refusal_of(line[n], taken, {}) is None
        taken[line[n]] += 1
    left = [line[n] for n in range(len(line)) if n not in chosen]
    assert all(places.refusal_of(call_type, taken, {}) is not None for call_type in left)


@given(all_places(), LINES, LINES)
def test_within_a_type_the_first_comes_first(places: Places, running: str, line: str) -> None:
    chosen = places.next_of(line, running)

    for n in chosen:
        assert all(m in chosen for m in range(n) if line[m] == line[n])


@given(all_places(), LINES, LINES, st.sampled_from(TYPES))
def test_a_new_call_takes_no_place_of_those_that_wait(
    places: Places, running: str, line: str, call_type: str
) -> None:
    """If it is let through, all that could be woken before can be woken still."""
    if places.refusal_of(call_type, Counter(running), Counter(line)) is None:
        before = places.next_of(line, running)
        assert places.next_of(line, [*running, call_type]) == before


def test_a_type_that_is_full_does_not_stop_another() -> None:
    """Although many wait for it, and came first."""
    rules = (
        ConcurrencyRule(CallsOf.ORGANISATION, "", 3),
        ConcurrencyRule(CallsOf.CALL_TYPE, "a", 1),
    )
    places = Places("acme", rules)

    assert places.refusal_of("b", {"a": 1}, {"a": 50}) is None
    assert places.next_of("aaaabb", "a") == [4, 5]


def test_a_rule_with_a_name_replaces_the_one_without() -> None:
    rules = (
        ConcurrencyRule(CallsOf.ORGANISATION, "", 3),
        ConcurrencyRule(CallsOf.ORGANISATION, "acme", 9),
        ConcurrencyRule(CallsOf.CALL_TYPE, "", 2),
        ConcurrencyRule(CallsOf.CALL_TYPE, "chat", None),
    )
    acme, bolt = Places("acme", rules), Places("bolt", rules)

    assert (acme.total_max, bolt.total_max) == (9, 3)
    assert (acme.type_max("chat"), acme.type_max("other")) == (None, 2)


def test_the_catalogue_declares_them() -> None:
    """A call type with a policy of its own does not have the default's number."""
    catalogue = Catalogue.model_validate(
        {
            "organisations": {"concurrency_max": 3, "orgs": {"acme": {"concurrency_max": 9}}},
            "default": {"concurrency_max": 2},
            "call_types": {"chat": {}, "extract": {"concurrency_max": 1}},
        }
    )

    assert catalogue.declaration().concurrency == (
        ConcurrencyRule(CallsOf.ORGANISATION, "", 3),
        ConcurrencyRule(CallsOf.ORGANISATION, "acme", 9),
        ConcurrencyRule(CallsOf.CALL_TYPE, "", 2),
        ConcurrencyRule(CallsOf.CALL_TYPE, "chat", None),
        ConcurrencyRule(CallsOf.CALL_TYPE, "extract", 1),
    )
    assert Catalogue().declaration().concurrency == ()
    only_one = Catalogue.model_validate({"call_types": {"chat": {}, "x": {"concurrency_max": 1}}})
    assert only_one.declaration().concurrency == (ConcurrencyRule(CallsOf.CALL_TYPE, "x", 1),)
