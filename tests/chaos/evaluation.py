"""
The evaluation of one trial: compare the reports of the clients and the requests at the provider with the ledger.

It is pure, so that a test can show that it finds each violation. The reports and the requests come from processes that
do not use the ledger.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.chaos.limits import LimitsSeen, LimitUse, is_untested, total, use_of, violations_of
from tests.chaos.mix import CHAT

LINK_OWED = {"succeeded": "link", "wrong": "link", "dead": "link_error", "rejected": "link_error"}
"""Which link must be delivered, by the outcome that the client received."""
DELIVERIES_MAX = 5
"""One, and one for each worker that dies or is cut off before it marks the link. No trial has more."""
CLOCKS_S = 0.1
"""
The tolerance between the clocks of the provider and Postgres. Both are of this machine, but the first is monotonic, and
the second may be adjusted during a trial.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of one `submit_many`, as reported by the client."""

    document: str
    """The document that the links name; empty without links."""
    outcomes: Sequence[tuple[str, str]]
    """The task id of each handle, and succeeded, wrong, dead, rejected or lost."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of `ai_call_log`."""

    attempt_id: str
    call_id: str
    unknown_at_s: float | None = None
    """When it became UNKNOWN, in seconds since 1970; also if a late answer came afterwards."""
    provider: str = CHAT
    """The entry of the catalogue that its row names."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that reached the provider."""

    attempt_id: str | None
    at_s: float
    """When, in seconds since 1970."""
    is_refused: bool = False
    """Whether a limit of the provider refused it. It is not paid."""
    provider: str = CHAT
    """The entry whose protocol it was in, by its path."""
    ended_at_s: float = math.inf
    """When its answer was complete, or its connection gone."""


@dataclass(frozen=True, slots=True)
class Observations:
    """What was observed in one trial."""

    batches: Sequence[Batch]
    requests: Sequence[Arrival]
    attempts: Sequence[Attempt]
    calls: Mapping[str, str]
    """The state of every call in the ledger, by task id."""
    calls_of: Mapping[str, int]
    """The number of calls in the ledger, by entry of the catalogue; of each entry that the load names."""
    misposted: Mapping[str, int]
    """The number of successful attempts that are not posted at the usage that the provider reported, by entry."""
    overrun_nano_usd: int
    """The largest spent + held - limit of any budget at any time."""
    drift_nano_usd: int
    is_clean: bool
    """The result of `callgate audit`."""
    unknown_below_hold: int
    """The number of UNKNOWN attempts that were not posted at their hold."""
    posted_again: int
    """How often an attempt was posted again after its outcome was posted."""
    unused_replies: int
    """The number of attempts with a reply that have not succeeded."""
    delivered: Mapping[tuple[str, str], int]
    """The number of different link messages at the pipeline, by document and link or link_error."""
    deliveries_max: int
    """How often one message was delivered, at most."""
    unmarked_links: int
    """The number of links that the ledger does not mark as delivered, although every call has ended."""
    limits: Mapping[str, LimitsSeen]
    """By entry."""
    recover_s: float | None
    """From the fault to the end of every call accepted before it; None if that took too long."""


@dataclass(frozen=True, slots=True)
class ProtocolUse:
    """The counts of one protocol."""

    calls: int
    requests: int
    duplicates: int
    limits: LimitUse


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The counts of one trial, and its violations."""

    accepted: int
    terminal: int
    lost: int
    calls: int
    requests: int
    unlogged: int
    """Provider requests without a row."""
    shared: int
    """Provider requests beyond the first with the same attempt id."""
    never_sent: int
    """Rows without a provider request: the worker died before it sent one."""
    duplicates: int
    """Provider requests beyond the first of a call."""
    duplicates_unknown: int
    """How many of them follow only attempts that were UNKNOWN at that time."""
    overrun_nano_usd: int
    drift_nano_usd: int
    links_delivered: int
    links_owed: int
    link_errors_delivered: int
    link_errors_owed: int
    deliveries_max: int
    limits: LimitUse
    protocols: Mapping[str, ProtocolUse]
    """By entry of the catalogue."""
    recover_s: float | None
    violations: tuple[str, ...] = field(default=())


def evaluate(observations: Observations, violations: Sequence[str] = ()) -> Evaluation:
    """Count, and list violations; `violations` are those that the trial found itself."""
    outcomes = [pair for batch in observations.batches for pair in batch.outcomes]
    lost = sum(outcome == "lost" or task not in observations.calls for task, outcome in outcomes)
    owed = links_owed(observations.batches)
    delivered = Counter(
        {key: min(n, observations.delivered.get(key, 0)) for key, n in owed.items()}
    )
    rows = {attempt.attempt_id for attempt in observations.attempts}
    arrivals = Counter(request.attempt_id for request in observations.requests)
    duplicates = _duplicates(observations)
    protocols = dict(_protocols(observations, duplicates))
    evaluation = Evaluation(
        accepted=len(outcomes),
        terminal=len(outcomes) - lost,
        lost=lost,
        calls=len(observations.calls),
        requests=len(observations.requests),
        unlogged=sum(n for attempt_id, n in arrivals.items() if attempt_id not in rows),
        shared=sum(n - 1 for attempt_id, n in arrivals.items() if attempt_id is not None),
        never_sent=len(rows - arrivals.keys()),
        duplicates=len(duplicates),
        duplicates_unknown=sum(follows_unknown for _, follows_unknown in duplicates),
        overrun_nano_usd=observations.overrun_nano_usd,
        drift_nano_usd=observations.drift_nano_usd,
        links_delivered=_count(delivered, "link"),
        links_owed=_count(owed, "link"),
        link_errors_delivered=_count(delivered, "link_error"),
        link_errors_owed=_count(owed, "link_error"),
        deliveries_max=observations.deliveries_max,
        limits=total(protocol.limits for protocol in protocols.values()),
        protocols=protocols,
        recover_s=observations.recover_s,
    )
    found = (*_violations(evaluation, observations), *_violations_of_protocols(observations))
    return replace(evaluation, violations=(*found, *violations))


def links_owed(batches: Iterable[Batch]) -> Counter[tuple[str, str]]:
    """Return how many link messages must be delivered, by document and by link or link_error."""
    return Counter(
        (batch.document, LINK_OWED[outcome])
        for batch in batches
        for _, outcome in batch.outcomes
        if batch.document and outcome in LINK_OWED
    )


def _count(links: Mapping[tuple[str, str], int], which: str) -> int:
    return sum(n for (_, link), n in links.items() if link == which)


def _protocols(
    observations: Observations, duplicates: Sequence[tuple[str, bool]]
) -> Iterable[tuple[str, ProtocolUse]]:
    requests = Counter(request.provider for request in observations.requests)
    repeats = Counter(provider for provider, _ in duplicates)
    for name, calls in observations.calls_of.items():
        use = use_of(observations.limits[name])
        yield name, ProtocolUse(calls, requests[name], repeats[name], use)


def _violations_of_protocols(observations: Observations) -> Iterable[str]:
    """Return violations that name their protocol."""
    rows = {attempt.attempt_id: attempt.provider for attempt in observations.attempts}
    sent = {request.provider for request in observations.requests}
    for name in observations.calls_of:
        if name not in sent:
            yield f"{name}: no request"
        if n := observations.misposted.get(name):
            yield f"{name}: {n} attempts are not posted at the usage that the provider reported"
        yield from (f"{name}: {text}" for text in violations_of(observations.limits[name]))
    if is_untested(observations.limits.values()):
        yield "no call waited for a limit"
    misplaced = [
        request
        for request in observations.requests
        if rows.get(request.attempt_id or "", request.provider) != request.provider
    ]
    if misplaced:
        yield f"{len(misplaced)} provider requests are not in the protocol of their row"


def _violations(evaluation: Evaluation, observations: Observations) -> Iterable[str]:
    outcomes = [outcome for batch in observations.batches for _, outcome in batch.outcomes]
    wrong = outcomes.count("wrong")
    still_open = sum(s in ("queued", "running", "waiting") for s in observations.calls.values())
    checks = {
        "nothing was accepted": evaluation.accepted == 0,
        f"{evaluation.lost} submissions lost": evaluation.lost > 0,
        f"{wrong} results do not fit their requests": wrong > 0,
        f"{still_open} calls still open": still_open > 0,
        f"{evaluation.unlogged} provider requests without a row": evaluation.unlogged > 0,
        f"{evaluation.shared} provider requests share a row": evaluation.shared > 0,
        f"{evaluation.duplicates - evaluation.duplicates_unknown} duplicate requests without an UNKNOWN": (
            evaluation.duplicates != evaluation.duplicates_unknown
        ),
        f"a limit was exceeded by {evaluation.overrun_nano_usd} nano-USD": evaluation.overrun_nano_usd
        > 0,
        f"audit drift {evaluation.drift_nano_usd} nano-USD": evaluation.drift_nano_usd != 0,
        "the audit is not clean": not observations.is_clean,
        f"{observations.unknown_below_hold} UNKNOWN attempts are not posted at their hold": (
            observations.unknown_below_hold > 0
        ),
        f"{observations.posted_again} times an outcome was posted again": observations.posted_again
        > 0,
        f"{observations.unused_replies} attempts with a reply have not succeeded": observations.unused_replies
        > 0,
        f"{observations.unmarked_links} links were never marked as delivered": observations.unmarked_links
        > 0,
        f"a link was delivered {observations.deliveries_max} times": observations.deliveries_max
        > DELIVERIES_MAX,
        f"{evaluation.links_owed - evaluation.links_delivered} links never delivered": (
            evaluation.links_delivered < evaluation.links_owed
        ),
        f"{evaluation.link_errors_owed - evaluation.link_errors_delivered} error links never delivered": (
            evaluation.link_errors_delivered < evaluation.link_errors_owed
        ),
        "no recovery in time": evaluation.recover_s is None,
    }
    yield from (text for text, is_violated in checks.items() if is_violated)


def _duplicates(observations: Observations) -> list[tuple[str, bool]]:
    """
    Return of each request beyond the first of its call its entry, and whether it follows only UNKNOWN attempts.

    Refused ones are not paid, so they do not count.
    """
    found = []
    rows = {attempt.attempt_id: attempt for attempt in observations.attempts}
    sent: dict[str, list[Attempt]] = defaultdict(list)
    for request in sorted(observations.requests, key=lambda request: request.at_s):
        attempt = rows.get(request.attempt_id or "")
        if request.is_refused or attempt is None or attempt in sent[attempt.call_id]:
            continue
        known_at_s = request.at_s + CLOCKS_S
        unknown_at_s = [earlier.unknown_at_s for earlier in sent[attempt.call_id]]
        if unknown_at_s:
            is_known = all(at_s is not None and at_s <= known_at_s for at_s in unknown_at_s)
            found.append((attempt.provider, is_known))
        sent[attempt.call_id].append(attempt)
    return found
