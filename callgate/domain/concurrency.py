"""
How many calls of one organisation may run at a time, in total and of one call type.

Places are counted from the calls that run, so none is lost with a worker. A call that finds no place waits in the
ledger, in the line of its organisation. It is woken in turn: the line is walked in the order of `rank_of`, and a call
whose type has no place left is passed over. A new call counts the line as if it ran already, so it does not overtake.
The Postgres functions follow these rules; the contract tests run against both.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf

CONCURRENCY_CODE = "concurrency_limited"
"""Why a call waits until fewer calls of its organisation run."""


class CallsOf(StrEnum):
    """Which calls of an organisation are counted together."""

    ORGANISATION = "organisation"
    CALL_TYPE = "call_type"


@dataclass(frozen=True, slots=True)
class ConcurrencyRule:
    """How many calls of each organisation may run at a time: all of them, or those of a call type."""

    calls_of: CallsOf
    name: str
    """An organisation or a call type. Empty: each one that has no rule of its own."""
    amount: int | None
    """None: any number, whatever the rule without a name says."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many calls of one organisation may run at a time."""

    org_id: str
    rules: tuple[ConcurrencyRule, ...]

    @property
    def total_max(self) -> int | None:
        """Of all its calls."""
        return self._max(CallsOf.ORGANISATION, self.org_id)

    def type_max(self, call_type: str) -> int | None:
        """Of its calls of one type."""
        return self._max(CallsOf.CALL_TYPE, call_type)

    def refusal_of(
        self, call_type: str, running: Mapping[str, int], line: Mapping[str, int]
    ) -> str | None:
        """
        The error of a call that finds no place, as JSON; None: it finds one.

        Args:
            running: The calls that run, by type.
            line: The calls that came before it and wait, by type. Empty for a call that has waited itself.
        """
        most = self.type_max(call_type)
        taken = running.get(call_type, 0) + line.get(call_type, 0)
        if most is not None and taken >= most:
            return _error(f"{most} {call_type} calls of {self.org_id}")
        most = self.total_max
        # Those that wait for a place of their type do not take one of the organisation.
        coming = sum(min(n, self._room(of, running)) for of, n in line.items())
        if most is not None and sum(running.values()) + coming >= most:
            return _error(f"{most} calls of {self.org_id}")
        return None

    def next_of(self, line: Sequence[str], taken: Iterable[str]) -> list[int]:
        """
        Which calls of a line find a place now, by index.

        Args:
            line: The types of those that wait, in turn.
            taken: The types of the calls that run, or were woken and do not run yet.
        """
        by_type = Counter(taken)
        chosen = []
        for n, call_type in enumerate(line):
            if self.total_max is not None and by_type.total() >= self.total_max:
                break
            if self._room(call_type, by_type) > 0:
                by_type[call_type] += 1
                chosen.append(n)
        return chosen

    def _room(self, call_type: str, running: Mapping[str, int]) -> float:
        most = self.type_max(call_type)
        return inf if most is None else max(0, most - running.get(call_type, 0))

    def _max(self, calls_of: CallsOf, name: str) -> int | None:
        rules = {rule.name: rule.amount for rule in self.rules if rule.calls_of is calls_of}
        return rules.get(name, rules.get(""))


def _error(what: str) -> str:
    return json.dumps({"code": CONCURRENCY_CODE, "message": f"{what} may run at a time"})
