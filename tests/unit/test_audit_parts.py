"""The figures of an audit are read in parts that fit into the ledger's timeout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from callgate.adapters.postgres.audit import in_parts
from callgate.domain.errors import LedgerUnavailable


@pytest.mark.parametrize("at_most", [1, 3, 10, 1_000])
def test_each_is_asked_for_once(at_most: int) -> None:
    """In order, whatever fits."""
    assert list(in_parts(asking(at_most, []), 5, 105, 40)) == list(range(5, 105))


def test_what_was_too_much_is_not_tried_again() -> None:
    """Of forty, twenty and ten only ten fit."""
    refused: list[int] = []

    list(in_parts(asking(10, refused), 0, 100, 40))

    assert refused == [40, 20]


def test_nothing_fits_if_one_does_not() -> None:
    """As if the ledger is away: after some tries."""
    refused: list[int] = []

    with pytest.raises(LedgerUnavailable):
        list(in_parts(asking(0, refused), 0, 10_000, 10_000))

    assert len(refused) < 20


def asking(at_most: int, refused: list[int]) -> Callable[[int, int], list[Any]]:
    """A ledger that reads so much in one statement, and no more."""

    def ask(since: int, until: int) -> list[int]:
        if until - since > at_most:
            refused.append(until - since)
            raise LedgerUnavailable("statement timeout")
        return list(range(since, until))

    return ask
