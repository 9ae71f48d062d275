"""Amounts of money: rounding, printing and reading."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.budgets import (
    cost_nano_usd,
    hold_nano_usd,
    nano_usd_of,
    usd,
)

AMOUNTS = st.integers(0, 10**12)


@pytest.mark.parametrize(
    ("amount_usd", "hold", "cost"),
    [
        ("0", 0, 0),
        ("0.000000001", 1, 1),
        ("0.0000000001", 1, 0),
        ("0.0000000005", 1, 0),
        ("0.0000000015", 2, 2),
        ("0.0000000025", 3, 2),
        ("0.00000000251", 3, 3),
        ("1.5", 1_500_000_000, 1_500_000_000),
        ("9000000.000000001", 9_000_000_000_000_001, 9_000_000_000_000_001),
    ],
)
def test_holds_round_up_and_costs_half_even(amount_usd: str, hold: int, cost: int) -> None:
    """A hold is never too low; many small costs do not drift."""
    assert hold_nano_usd(Decimal(amount_usd)) == hold
    assert cost_nano_usd(Decimal(amount_usd)) == cost


@given(st.decimals(0, 1_000_000, allow_nan=False, allow_infinity=False, places=15))
def test_a_hold_is_never_below_its_cost(amount_usd: Decimal) -> None:
    """And at most one nano-USD above the exact amount."""
    nano = amount_usd * 1_000_000_000

    assert nano <= hold_nano_usd(amount_usd) < nano + 1
    assert abs(cost_nano_usd(amount_usd) - nano) <= Decimal("0.5")
    assert cost_nano_usd(amount_usd) <= hold_nano_usd(amount_usd)


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "$0.000000"),
        (1, "$0.000000001"),
        (1_230_000, "$0.001230"),
        (1_230_001, "$0.001230001"),
        (-5_000, "$-0.000005"),
        (12_000_000_000, "$12.000000"),
    ],
)
def test_amounts_are_shown_exactly(nano_usd: int, text: str) -> None:
    """Six decimals, or nine where needed."""
    assert usd(nano_usd) == text


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("0", 0), ("5", 5 * 10**9), ("0.000000001", 1), ("1.2E-05", 12_000), ("1e3", 10**12), (" 0.5 ", 5 * 10**8),
        ("1.000000000000000", 10**9), ("-0", 0), ("0e-999999999", 0), ("1000000", 10**15), (".5", 5 * 10**8),
    ],
)  # fmt: skip
def test_an_amount_is_read_exactly(text: str, nano_usd: int) -> None:
    """As people and spreadsheets write it."""
    assert nano_usd_of(text, usd_max=1_000_000) == nano_usd


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "-1",
            "-0.000000001",
            "nan",
            "sNaN",
            "inf",
            "-Infinity",
            "1,5",
            "0x1",
            "1_0",
            "\uff11",
        ),
        *("0.0000000001", "1e-10", "1e-999999", "1E-1999998", "1e999999", "1e999999999999999999"),
        *("1000000.000000001", "1e7", "0.1234567890000000000000000000000001", "9" * 5_000),
    ],
)
def test_an_invalid_amount_is_refused(text: str) -> None:
    """Never rounded, no traceback, and in bounded time."""
    with pytest.raises(ValueError, match="no amount of USD from 0 to 1000000 with at most 9") as no:
        nano_usd_of(text, usd_max=1_000_000)

    assert len(str(no.value)) < 200


@given(AMOUNTS)
def test_a_printed_amount_can_be_read(nano_usd: int) -> None:
    """Without the dollar sign."""
    assert nano_usd_of(usd(nano_usd).removeprefix("$"), usd_max=1_000) == nano_usd
