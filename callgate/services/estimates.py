"""Say what requests may cost, from the prices of now and the ledger's own history. Nothing is stored or sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from pydantic import ValidationError

from callgate.domain import gates, identity
from callgate.domain.bounds import LISTED_MAX, REQUEST_MAX_BYTES, ROWS_MAX
from callgate.domain.calls import CallState, CallView
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import InvalidRequest
from callgate.domain.estimates import (
    HISTORY_ATTEMPTS_MAX,
    HISTORY_DAYS,
    Candidate,
    Estimate,
    GroupEstimate,
    GroupName,
    Refused,
    RefusedGroup,
)
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import CallFilter, SpendingLine
from callgate.domain.requests import LLMRequest
from callgate.domain.retry import paid_attempts_max
from callgate.services.submit import SubmitService

SEEN_MAX = 250_000
"""Requests that are remembered to find duplicates: about 25 MB."""
GROUPS_MAX = 10_000
NUMBERS_MAX = 20
"""Refused requests of one reason whose numbers are told."""
TOO_LONG = Refused(
    "input_too_large", f"a line has at most {REQUEST_MAX_BYTES} bytes, as a request in the ledger"
)
_FREE_STATES = {
    CallState.QUEUED: "joined",
    CallState.RUNNING: "joined",
    CallState.WAITING: "joined",
    CallState.SUCCEEDED: "replayed",
    CallState.DEAD: "failed",
}
"""What becomes of a request whose call is in this state. A rejected call is made again."""


@dataclass(slots=True)
class _Group:
    """The sums of one group."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("requests", "new", "replayed", "joined", "failed", "duplicates"), 0
        )
    )
    hold_nano_usd: int = 0
    repair_nano_usd: int = 0
    """One repair of each request that may have one."""
    unrepaired_nano_usd: int = 0
    """The holds of requests that have none."""


@dataclass(slots=True)
class _Refusals:
    """Refused requests of one reason."""

    first_why: str
    count: int = 0
    numbers: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Quoted:
    """A request that passed every gate, without its text."""

    call_id: UUID
    name: GroupName
    hold_nano_usd: int
    repair_nano_usd: int


class EstimateService:
    """Estimates requests in the order given, a thousand at a time, in bounded memory."""

    def __init__(
        self, submits: SubmitService, operations: OperationsPort, catalogue: Catalogue
    ) -> None:
        self._submits = submits
        self._operations = operations
        self._catalogue = catalogue

    def estimate(self, candidates: Iterable[Candidate]) -> Estimate:
        """
        Count and price requests as `submit_many` would see them now.

        Raises:
            InvalidRequest: They are of more than `GROUPS_MAX` organisations, call types and models.
            LedgerUnavailable: The ledger did not answer.
        """
        groups: dict[GroupName, _Group] = {}
        refusals: dict[str, _Refusals] = {}
        seen: set[bytes] = set()
        total, rest = 0, iter(candidates)
        while batch := list(self._quoted(islice(rest, ROWS_MAX), refusals)):
            total += len(batch)
            quoted = [q for q in batch if q is not None]
            self._add(quoted, groups, seen)
            if len(groups) > GROUPS_MAX:
                raise InvalidRequest(
                    f"the requests are of more than {GROUPS_MAX} organisations, call types and models: split them"
                )
        history = self._history(groups)
        return Estimate(
            requests=total,
            groups=tuple(self._estimated(n, groups[n], history.get(n)) for n in _sorted(groups)),
            refused=tuple(
                RefusedGroup(code, r.count, r.first_why, tuple(r.numbers))
                for code, r in sorted(refusals.items())
            ),
            are_duplicates_complete=len(seen) < SEEN_MAX,
        )

    def _quoted(
        self, candidates: Iterable[Candidate], refusals: dict[str, _Refusals]
    ) -> Iterator[_Quoted | None]:
        """Price each request; None for one that is refused."""
        for candidate in candidates:
            found = candidate.request
            quoted = found if isinstance(found, Refused) else self._quote(found)
            if isinstance(quoted, _Quoted):
                yield quoted
                continue
            kind = refusals.setdefault(quoted.code, _Refusals(quoted.why))
            kind.count += 1
            if len(kind.numbers) < NUMBERS_MAX:
                kind.numbers.append(candidate.number)
            yield None

    def _quote(self, request: LLMRequest) -> _Quoted | Refused:
        try:
            quote = self._submits.quote(request)
            gates.check_stored_bytes(quote.request.model_dump_json().encode())
        except InvalidRequest as exc:
            return Refused(exc.code, str(exc))
        call_id = identity.call_id(request.org_id, identity.input_hash(quote.request))
        name = GroupName(request.org_id, request.call_type, request.provider, request.model)
        return _Quoted(call_id, name, quote.worst_case_nano_usd, quote.repair_nano_usd)

    def _add(
        self, quoted: Sequence[_Quoted], groups: dict[GroupName, _Group], seen: set[bytes]
    ) -> None:
        """Count the requests of one batch by what would become of them."""
        newest = self._newest([q.call_id for q in quoted])
        for q in quoted:
            group = groups.setdefault(q.name, _Group())
            outcome = _outcome(newest.get(q.call_id))
            if q.call_id.bytes in seen:
                outcome = "duplicates"
            elif len(seen) < SEEN_MAX:
                seen.add(q.call_id.bytes)
            group.counts["requests"] += 1
            group.counts[outcome] += 1
            if outcome == "new":
                group.hold_nano_usd += q.hold_nano_usd
                group.repair_nano_usd += q.repair_nano_usd
                group.unrepaired_nano_usd += 0 if q.repair_nano_usd else q.hold_nano_usd

    def _newest(self, call_ids: Sequence[UUID]) -> dict[UUID, CallView]:
        """The newest generation of each call that exists and that the login may read."""
        if not call_ids:
            return {}
        newest: dict[UUID, CallView] = {}
        call_filter = CallFilter(call_ids=tuple(set(call_ids)))
        for view in self._operations.calls(call_filter, limit=LISTED_MAX):
            known = newest.setdefault(view.key.call_id, view)
            if view.key.generation > known.key.generation:
                newest[view.key.call_id] = view
        return newest

    def _history(self, groups: Iterable[GroupName]) -> dict[GroupName, SpendingLine]:
        org_ids = sorted({name.org_id for name in groups})
        lines = self._operations.spending(
            org_ids, days=HISTORY_DAYS, attempts_max=HISTORY_ATTEMPTS_MAX
        )
        return {
            GroupName(line.org_id, line.call_type, line.provider, line.model): line
            for line in lines
        }

    def _estimated(
        self, name: GroupName, group: _Group, history: SpendingLine | None
    ) -> GroupEstimate:
        policy = self._catalogue.policy(name.call_type)
        later = paid_attempts_max(policy) - 1
        repairs = min(policy.repairs_max, later)
        # After a repair the call's bound of input tokens stays, so further attempts hold as much.
        retries = later * group.unrepaired_nano_usd + (later - repairs) * group.repair_nano_usd
        return GroupEstimate(
            name=name,
            **group.counts,
            hold_nano_usd=group.hold_nano_usd,
            repairs_nano_usd=repairs * group.repair_nano_usd,
            retries_nano_usd=retries,
            history_attempts=history.attempts if history else 0,
            history_cost_nano_usd=history.posted_nano_usd if history else 0,
            history_hold_nano_usd=history.hold_nano_usd if history else 0,
        )


def candidates_in(lines: Iterable[bytes]) -> Iterator[Candidate]:
    """
    Read requests from lines of JSON; empty lines are left out.

    Args:
        lines: Those longer than `REQUEST_MAX_BYTES` may be cut.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Candidate(number, _request_in(line))


def _request_in(line: bytes) -> LLMRequest | Refused:
    """One line's request. What is wrong is said without the line's own words: they may be a prompt."""
    if len(line.rstrip(b"\r\n")) > REQUEST_MAX_BYTES:
        return TOO_LONG
    try:
        return LLMRequest.from_stored(line.strip())
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
        where = [part for part in first["loc"][:1] if part in LLMRequest.model_fields]
        return Refused(
            "invalid_request", f"{where[0] if where else 'the request'}: {first['type']}"
        )
    except ValueError:
        return Refused("invalid_request", "it cannot be read as a request")


def _outcome(view: CallView | None) -> str:
    if view is None or (view.state is CallState.SUCCEEDED and view.is_purged):
        return "new"
    return _FREE_STATES.get(view.state, "new")


def _sorted(groups: Iterable[GroupName]) -> list[GroupName]:
    return sorted(groups, key=lambda name: (name.org_id, name.call_type, name.provider, name.model))
