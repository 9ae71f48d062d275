"""Which untrusted JSON is parsed, and which is refused before parsing."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.bounded_json import DEPTH_MAX, VALUES_MAX, TooLarge, check_bytes, loads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(JSON, st.booleans(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_json_within_the_bounds_is_parsed(value: object, is_ascii: bool, encoding: str) -> None:
    """As text, and as bytes in every encoding of JSON."""
    text = json.dumps(value, ensure_ascii=is_ascii)

    assert loads(text) == value
    assert loads(text.encode(encoding)) == value
    check_bytes(text.encode())


@given(st.text(), st.binary())
def test_invalid_json_is_a_value_error(text: str, data: bytes) -> None:
    for given_ in (text, data):
        try:
            expected = json.loads(given_)
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                loads(given_)
        else:
            assert repr(loads(given_)) == repr(expected)


@pytest.mark.parametrize(
    ("text", "is_read"),
    [
        ("[" + "1," * (VALUES_MAX - 2) + "1]", True),
        ("[" + "1," * (VALUES_MAX - 1) + "1]", False),
        ("[" * DEPTH_MAX + "]" * DEPTH_MAX, True),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), False),
        ('{"a":' * DEPTH_MAX + "1" + "}" * DEPTH_MAX, True),
        ('{"a":' * (DEPTH_MAX + 1) + "1" + "}" * (DEPTH_MAX + 1), False),
        ("[" + ",".join(["[]"] * (VALUES_MAX // 2)) + "]", False),
        (json.dumps("[," * VALUES_MAX), True),
        (json.dumps('"[,' * VALUES_MAX), True),
        (json.dumps("\\" * VALUES_MAX), True),
        (json.dumps({"[" * VALUES_MAX: "," * VALUES_MAX}), True),
        ('"' + "[," * VALUES_MAX, None),
        ("]" * VALUES_MAX, None),
        ('""' * 5 * VALUES_MAX, False),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_values_and_depth_have_bounds(text: str, is_read: bool | None) -> None:
    """Marks inside strings do not count. None stands for text that is not JSON."""
    if is_read:
        assert loads(text) == json.loads(text)
        return
    with pytest.raises(ValueError, match=r".") as raised:
        loads(text)
    assert isinstance(raised.value, TooLarge) == (is_read is False)
    with pytest.raises(TooLarge) if is_read is False else nullcontext():
        check_bytes(text.encode())


def test_utf_16_bytes_that_look_like_quotes_hide_nothing() -> None:
    text = '["\u2222",' + "[]," * VALUES_MAX + "[]]"

    with pytest.raises(TooLarge):
        loads(text.encode("utf-16"))
