"""What requests may cost before anything is run: the words of `EstimateService`."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from callgate.domain.requests import LLMRequest

HISTORY_DAYS = 30
HISTORY_ATTEMPTS_MAX = 10_000
"""How many attempts of each organisation, the newest ones, are its history."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a line holds no request."""

    code: str
    why: str
    """Without any text of the line."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One request that may be submitted, with its number: of its line, or of its place."""

    number: int
    request: LLMRequest | Refused


@dataclass(frozen=True, slots=True)
class GroupName:
    """What is estimated together."""

    org_id: str
    call_type: str
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class GroupEstimate:
    """The requests of one group, and what they may cost."""

    name: GroupName
    requests: int
    """Requests that passed every gate. All but the new ones cost nothing now."""
    new: int
    """Requests that would make a call."""
    replayed: int
    """Answered already: the stored result comes at once."""
    joined: int
    """Their call is under way; another submission pays it."""
    failed: int
    """Their call is dead: the stored failure comes at once."""
    duplicates: int
    """The same as an earlier request of these."""
    hold_nano_usd: int
    """The holds of the first attempt of each new request."""
    repairs_nano_usd: int
    """What repairs may add: `repairs_max` of each, with a broken answer as long as the output bound allows."""
    retries_nano_usd: int
    """What further attempts may add, if every one that may be paid is paid with its whole hold."""
    history_attempts: int
    """Succeeded attempts of the last 30 days that the expectation comes from."""
    history_cost_nano_usd: int
    history_hold_nano_usd: int

    @property
    def worst_case_nano_usd(self) -> int:
        """One attempt of each new request at its whole hold, and its repairs. Retries are not in it."""
        return self.hold_nano_usd + self.repairs_nano_usd

    @property
    def expected_nano_usd(self) -> int | None:
        """The holds times the share of their hold that earlier answers cost; None without a history."""
        if self.hold_nano_usd == 0:
            return 0
        if not self.history_hold_nano_usd:
            return None
        share = Fraction(self.history_cost_nano_usd, self.history_hold_nano_usd)
        return round(self.hold_nano_usd * share)


@dataclass(frozen=True, slots=True)
class RefusedGroup:
    """Requests that would be refused for the same reason."""

    code: str
    requests: int
    first_why: str
    numbers: tuple[int, ...]
    """The first of them."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests may cost."""

    requests: int
    groups: tuple[GroupEstimate, ...]
    refused: tuple[RefusedGroup, ...]
    are_duplicates_complete: bool
    """False: there were so many requests that later duplicates are counted as new. Then the worst case is higher."""

    @property
    def worst_case_nano_usd(self) -> int:
        """One attempt of each new request at its whole hold, and its repairs. Retries are not in it."""
        return sum(group.worst_case_nano_usd for group in self.groups)

    @property
    def repairs_nano_usd(self) -> int:
        """The part of the worst case that repairs are."""
        return sum(group.repairs_nano_usd for group in self.groups)

    @property
    def retries_nano_usd(self) -> int:
        """What further attempts may add to the worst case."""
        return sum(group.retries_nano_usd for group in self.groups)

    @property
    def expected_nano_usd(self) -> int:
        """What the groups with a history are expected to cost."""
        return sum(group.expected_nano_usd or 0 for group in self.groups)

    @property
    def without_history(self) -> int:
        """New requests of which nothing can be expected."""
        return sum(group.new for group in self.groups if group.expected_nano_usd is None)


def exact_usd(nano_usd: int) -> str:
    """The amount in USD as a plain decimal: `0.000012300`."""
    return f"{Decimal(nano_usd).scaleb(-9):.9f}"
