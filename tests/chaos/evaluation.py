"""
The judgement of one trial: what the clients were promised, what the provider saw, what the ledger says.

Pure, so that it can be shown to catch what it is there to catch. The provider's count and the clients' reports come
from their own processes; callgate's books are only compared with them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LINK_OWED = {"succeeded": "link", "dead": "link_error", "rejected": "link_error"}
"""Which of its two links a submission is told by, by the outcome that its client saw."""
TELLINGS_MAX = 5
"""One, and one more for each time that a worker dies or is cut off before it marks the link: no trial has so many."""
CLOCKS_S = 0.1
"""
How far the provider's clock and Postgres' may be apart. Both are this machine's, but the one counts from its start, and
the other one may be set while a trial runs.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one `submit_many` came to, as its client saw it."""

    document: str
    """What the batch's links name; empty if it had none."""
    outcomes: Sequence[tuple[str, str]]
    """The task id of each handle, and succeeded, dead, rejected or lost."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of `ai_call_log`."""

    attempt_id: str
    call_id: str
    unknown_at_s: float | None = None
    """When it became UNKNOWN, also if a late answer came afterwards; in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that reached the provider."""

    attempt_id: str | None
    at_s: float
    """When, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of one trial."""

    batches: Sequence[Batch]
    requests: Sequence[Arrival]
    attempts: Sequence[Attempt]
    calls: Mapping[str, str]
    """State by task id, of every call in the ledger."""
    overrun_nano_usd: int
    """The greatest spent + held - limit that any budget ever showed."""
    drift_nano_usd: int
    is_clean: bool
    """What `callgate audit` says."""
    unknown_below_hold: int
    """UNKNOWN attempts that do not post their whole hold."""
    posted_again: int
    """Times that an attempt was posted whose outcome was posted before."""
    unheeded: int
    """Attempts with a reply that are not called succeeded."""
    told: Mapping[tuple[str, str], int]
    """Different messages that reached the pipeline, by document and by link or link_error."""
    tellings_max: int
    """How often the same message reached it, at most."""
    unmarked: int
    """Links that are still to be told, by the ledger, although every call has ended."""
    recover_s: float | None
    """From the fault to the end of every call accepted before it; None: not within the bound."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table."""

    accepted: int
    terminal: int
    lost: int
    calls: int
    requests: int
    unlogged: int
    """Provider requests without a row."""
    shared: int
    """Provider requests beyond the first under one attempt id."""
    never_sent: int
    """Rows without a provider request: their worker died before it sent one."""
    duplicates: int
    """Provider requests beyond the first of a call."""
    duplicates_unknown: int
    """How many of them follow nothing but attempts that were UNKNOWN by then."""
    overrun_nano_usd: int
    drift_nano_usd: int
    links_told: int
    links_owed: int
    link_errors_told: int
    link_errors_owed: int
    tellings_max: int
    recover_s: float | None
    violations: tuple[str, ...] = field(default=())


def judge(evidence: Evidence, complaints: Sequence[str] = ()) -> Verdict:
    """Count, and name what must not be; complaints are what a trial found wrong in its own way."""
    outcomes = [pair for batch in evidence.batches for pair in batch.outcomes]
    lost = sum(outcome == "lost" or task not in evidence.calls for task, outcome in outcomes)
    owed = links_owed(evidence.batches)
    told = Counter({key: min(n, evidence.told.get(key, 0)) for key, n in owed.items()})
    rows = {attempt.attempt_id for attempt in evidence.attempts}
    arrivals = Counter(request.attempt_id for request in evidence.requests)
    duplicates, duplicates_unknown = _duplicates(evidence)
    verdict = Verdict(
        accepted=len(outcomes),
        terminal=len(outcomes) - lost,
        lost=lost,
        calls=len(evidence.calls),
        requests=len(evidence.requests),
        unlogged=sum(n for attempt_id, n in arrivals.items() if attempt_id not in rows),
        shared=sum(n - 1 for attempt_id, n in arrivals.items() if attempt_id is not None),
        never_sent=len(rows - arrivals.keys()),
        duplicates=duplicates,
        duplicates_unknown=duplicates_unknown,
        overrun_nano_usd=evidence.overrun_nano_usd,
        drift_nano_usd=evidence.drift_nano_usd,
        links_told=_count(told, "link"),
        links_owed=_count(owed, "link"),
        link_errors_told=_count(told, "link_error"),
        link_errors_owed=_count(owed, "link_error"),
        tellings_max=evidence.tellings_max,
        recover_s=evidence.recover_s,
    )
    return Verdict(
        **{name: getattr(verdict, name) for name in Verdict.__slots__ if name != "violations"},
        violations=(*_violations(verdict, evidence), *complaints),
    )


def links_owed(batches: Iterable[Batch]) -> Counter[tuple[str, str]]:
    """How many messages must reach the pipeline at least, by document and by link or link_error."""
    return Counter(
        (batch.document, LINK_OWED[outcome])
        for batch in batches
        for _, outcome in batch.outcomes
        if batch.document and outcome in LINK_OWED
    )


def _count(links: Mapping[tuple[str, str], int], which: str) -> int:
    return sum(n for (_, link), n in links.items() if link == which)


def _violations(verdict: Verdict, evidence: Evidence) -> Iterable[str]:
    still_open = sum(s in ("queued", "running", "waiting") for s in evidence.calls.values())
    wrong = {
        "nothing was accepted": verdict.accepted == 0,
        f"{verdict.lost} submissions lost": verdict.lost > 0,
        f"{still_open} calls still open": still_open > 0,
        f"{verdict.unlogged} provider requests without a row": verdict.unlogged > 0,
        f"{verdict.shared} provider requests share a row": verdict.shared > 0,
        f"{verdict.duplicates - verdict.duplicates_unknown} duplicate requests without an UNKNOWN": (
            verdict.duplicates != verdict.duplicates_unknown
        ),
        f"a limit was passed by {verdict.overrun_nano_usd} nano-USD": verdict.overrun_nano_usd > 0,
        f"audit drift {verdict.drift_nano_usd} nano-USD": verdict.drift_nano_usd != 0,
        "the audit is not clean": not evidence.is_clean,
        f"{evidence.unknown_below_hold} UNKNOWN attempts are not posted at their hold": (
            evidence.unknown_below_hold > 0
        ),
        f"{evidence.posted_again} times an outcome was posted again": evidence.posted_again > 0,
        f"{evidence.unheeded} replies are not called a success": evidence.unheeded > 0,
        f"{evidence.unmarked} links would be told for ever": evidence.unmarked > 0,
        f"a link was told {evidence.tellings_max} times": evidence.tellings_max > TELLINGS_MAX,
        f"{verdict.links_owed - verdict.links_told} links never told": (
            verdict.links_told < verdict.links_owed
        ),
        f"{verdict.link_errors_owed - verdict.link_errors_told} error links never told": (
            verdict.link_errors_told < verdict.link_errors_owed
        ),
        "no recovery within the bound": verdict.recover_s is None,
    }
    yield from (words for words, is_so in wrong.items() if is_so)


def _duplicates(evidence: Evidence) -> tuple[int, int]:
    """Count the requests beyond the first of each call, and those that only attempts went before which were UNKNOWN."""
    count = count_unknown = 0
    rows = {attempt.attempt_id: attempt for attempt in evidence.attempts}
    sent: dict[str, list[Attempt]] = defaultdict(list)
    for request in sorted(evidence.requests, key=lambda request: request.at_s):
        attempt = rows.get(request.attempt_id or "")
        if attempt is None or attempt in sent[attempt.call_id]:
            continue
        known_at_s = request.at_s + CLOCKS_S
        ends = [before.unknown_at_s for before in sent[attempt.call_id]]
        count += bool(ends)
        count_unknown += bool(ends) and all(
            at_s is not None and at_s <= known_at_s for at_s in ends
        )
        sent[attempt.call_id].append(attempt)
    return count, count_unknown
