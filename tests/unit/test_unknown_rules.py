"""Which bills are unknown: one list of words, in Python and in SQL."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from callgate.adapters.postgres.tables.attempts import ai_call_log
from callgate.domain.calls import AttemptStatus
from callgate.domain.requests import AMOUNT_UNKNOWN
from callgate.domain.unknown import WHOLE_HOLD, is_bill_unknown

TABLES = Path(__file__).parents[2] / "migrations/versions/0001/tables.sql"


@pytest.mark.parametrize("status", AttemptStatus)
def test_a_bill_is_unknown_by_status_or_by_what_was_odd(status: AttemptStatus) -> None:
    """Whatever else was odd."""
    is_left_open = status is AttemptStatus.UNKNOWN

    assert is_bill_unknown(status, ()) == is_left_open
    assert is_bill_unknown(status, ("tier_unasked", "usage_contradictory")) == is_left_open
    assert all(is_bill_unknown(status, ("tier_unasked", w)) for w in AMOUNT_UNKNOWN)


def test_the_words_are_the_same_everywhere() -> None:
    """The function is inlined where it is asked; only the very same words meet the condition of the index."""
    (index,) = [i for i in ai_call_log.indexes if i.name == "ix_ai_call_log_unknown"]
    condition = str(index.dialect_options["postgresql"]["where"])
    said = [_function("bill_unknown_v1"), condition, TABLES.read_text("utf-8")]

    for text in said:
        (words,) = re.findall(r"ARRAY\[([^]]*)\]", text)
        assert tuple(re.findall(r"'(\w+)'", words)) == tuple(sorted(AMOUNT_UNKNOWN))
    assert f"LIKE '{WHOLE_HOLD}%'" in _function("whole_hold_v1")


def _function(name: str) -> str:
    folder = resources.files("callgate.adapters.postgres") / "sql" / "functions"
    return (folder / f"{name}.sql").read_text("utf-8")
