"""What a broken invariant raises."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant was broken."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
