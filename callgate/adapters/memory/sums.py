"""The sums of the memory ledger: deltas, the sums they are folded into, seals, and the proof by rows."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from callgate.adapters.memory.rows import AttemptRow, CallRow, SubmissionRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.operator_ports import EVERYTHING
from callgate.domain.requests import Usage
from callgate.domain.sums import (
    BY_DAY,
    COLLAPSED,
    DEFAULT_BY,
    DIMENSIONS,
    NOTHING,
    QUARTER,
    QUARTERS_PER_DAY,
    CostFilter,
    CostLine,
    Delta,
    Measures,
    SumKey,
    SumProof,
    day_of,
    quarter_of,
)
from callgate.domain.unknown import is_bill_unknown

DAY = timedelta(days=1)


class MemorySums:
    """`SumsPort` over the tables of the memory ledger."""

    tables: MemoryTables
    _clock: Callable[[], datetime]
    _lock: threading.Lock

    def costs(
        self, which: CostFilter = EVERYTHING, by: Sequence[str] = DEFAULT_BY
    ) -> list[CostLine]:
        """Sum what was used."""
        with self._lock:
            return cost_lines(self.tables, which, by)

    def fold_sums(self, *, limit: int) -> int:
        """Move the oldest deltas into the sums."""
        with self._lock:
            return fold(self.tables, limit)

    def fill_sums(self) -> date | None:
        """Do nothing: this ledger has kept its sums from the beginning."""
        return None

    def sum_days(self, *, everything: bool = False) -> list[date]:
        """List the days whose sums are to be proven."""
        with self._lock:
            return sum_days(self.tables, self._clock(), everything)

    def prove_sums(self, since: datetime, until: datetime) -> SumProof:
        """Compare the sums with the rows, and seal the quarter hours that are right."""
        with self._lock:
            return prove(self.tables, since, until, self._clock())


@contextmanager
def noted(tables: MemoryTables, attempt: AttemptRow) -> Iterator[None]:
    """Append what a change of an attempt adds to the sums: minus what it was, plus what it is."""
    call = tables.calls[attempt.key]
    before = posted(attempt, call)
    yield
    after = posted(attempt, call)
    if before == after:
        return
    if before is not None:
        tables.deltas.append(replace(before, measures=-before.measures))
    if after is not None:
        tables.deltas.append(after)


def note_collapsed(tables: MemoryTables, submission: SubmissionRow) -> None:
    """Append that a submission was answered without a call of its own."""
    if submission.is_collapsed:
        call = tables.calls[submission.key]
        is_answered = call.state is CallState.SUCCEEDED
        saved = cost_of(tables, call.key) if is_answered else 0
        entry = collapsed(submission, call)
        tables.deltas.append(replace(entry, measures=replace(entry.measures, saved_nano_usd=saved)))


def end_savings(tables: MemoryTables, call: CallRow) -> None:
    """Append what the submissions saved that had joined a call which has just succeeded."""
    cost = cost_of(tables, call.key)
    for submission in tables.submissions_of[call.key]:
        if submission.outcome is SubmitOutcome.JOINED:
            entry = collapsed(submission, call)
            tables.deltas.append(replace(entry, measures=Measures(saved_nano_usd=cost)))


def fold(tables: MemoryTables, limit: int) -> int:
    """Move deltas into the sums of quarter hours, days and budgets; take the seals from what changes."""
    taken, tables.deltas = tables.deltas[:limit], tables.deltas[limit:]
    for delta in taken:
        quarter, day = (delta.starts_at, delta.key), (day_of(delta.starts_at).date(), delta.key)
        tables.quarter_sums[quarter] += delta.measures
        tables.day_sums[day] += delta.measures
        for budget_id in delta.budget_ids:
            tables.budget_sums[budget_id, day[0]] += delta.measures.posted_nano_usd
        tables.seals.pop(delta.starts_at, None)
    return len(taken)


def sum_days(tables: MemoryTables, now: datetime, everything: bool) -> list[date]:
    """The days that have an unsealed quarter hour or a delta, or all days since the first row."""
    times = [call.created_at for call in tables.calls.values()]
    times += [delta.starts_at for delta in tables.deltas]
    if not times:
        return []
    first, last = day_of(min(times)), max(day_of(now), day_of(max(times)))
    with_deltas = {day_of(delta.starts_at) for delta in tables.deltas}
    days = [first + n * DAY for n in range((last - first).days + 1)]
    return [
        day.date()
        for day in days
        if everything or day in with_deltas or _sealed(tables, day, day + DAY) < QUARTERS_PER_DAY
    ]


def prove(tables: MemoryTables, since: datetime, until: datetime, now: datetime) -> SumProof:
    """Compare the sums of a time with its rows; seal its quarter hours that are over and right."""
    by_rows = [delta for delta in rows(tables) if since <= delta.starts_at < until]
    deltas = [delta for delta in tables.deltas if since <= delta.starts_at < until]
    left: defaultdict[tuple[datetime, SumKey], Measures] = defaultdict(lambda: NOTHING)
    for entry in by_rows:
        left[entry.starts_at, entry.key] += entry.measures
    for entry in deltas:
        left[entry.starts_at, entry.key] += -entry.measures
    for (starts_at, key), measures in tables.quarter_sums.items():
        if since <= starts_at < until:
            left[starts_at, key] += -measures
    wrong = {name: _proven(found) for name, found in left.items() if _proven(found) != NOTHING}
    is_day = since == day_of(since) and until == since + DAY
    missing = _missing_rows(tables, since, until)
    proof = SumProof(
        wrong_sums=len(wrong) + (_wrong_days(tables, since.date()) if is_day else 0),
        drift_nano_usd=sum(abs(found.posted_nano_usd) for found in wrong.values()),
        wrong_budgets=_wrong_budgets(tables, since.date(), by_rows, deltas) if is_day else 0,
        calls_with_missing_rows=missing,
    )
    if not (proof.wrong_budgets or missing):
        open_quarters = {name[0] for name in wrong} | {delta.starts_at for delta in deltas}
        _seal(tables, since, min(until, quarter_of(now)), open_quarters)
    return replace(proof, sealed=_sealed(tables, since, until))


def rows(tables: MemoryTables) -> Iterator[Delta]:
    """What each row is in the sums: posted attempts, and collapsed submissions without what they saved."""
    for attempt in tables.attempts.values():
        if (entry := posted(attempt, tables.calls[attempt.key])) is not None:
            yield entry
    for submission in tables.submissions.values():
        if submission.is_collapsed:
            yield collapsed(submission, tables.calls[submission.key])


def posted(attempt: AttemptRow, call: CallRow) -> Delta | None:
    """What an attempt is in the sums; None if it is not posted."""
    if attempt.posted_nano_usd is None:
        return None
    cost, used = attempt.posted_nano_usd, attempt.usage or Usage()
    is_unknown = (
        is_bill_unknown(attempt.status, attempt.anomalies) and attempt.settled_by_hand_at is None
    )
    measures = Measures(
        attempts=1,
        calls=int(attempt.attempt == 1),
        posted_nano_usd=cost,
        unknown_bills=int(is_unknown),
        unknown_nano_usd=cost if is_unknown else 0,
        without_tokens=int(cost > 0 and attempt.usage is None),
        input_tokens=used.input_tokens,
        cached_input_tokens=used.cached_input_tokens,
        cache_write_tokens=used.cache_write_tokens,
        cache_write_1h_tokens=used.cache_write_1h_tokens,
        output_tokens=used.output_tokens,
        reasoning_tokens=used.reasoning_tokens,
        latency_ms=attempt.latency_ms or 0,
        timed=int(attempt.latency_ms is not None),
    )
    key = SumKey(
        call.org_id, call.call_type, call.provider, call.model, attempt.kind.value,
        attempt.status.value, attempt.service_tier,
    )  # fmt: skip
    return Delta(quarter_of(attempt.started_at), key, measures, attempt.budget_ids)


def collapsed(submission: SubmissionRow, call: CallRow) -> Delta:
    """What a submission that was answered without a call of its own is in the sums."""
    outcome = submission.outcome.value if submission.outcome else ""
    key = SumKey(call.org_id, call.call_type, call.provider, call.model, COLLAPSED, outcome)
    return Delta(quarter_of(submission.created_at), key, Measures(collapsed=1))


def cost_of(tables: MemoryTables, key: CallKey) -> int:
    """What the attempts of a call have posted."""
    return sum(attempt.posted_nano_usd or 0 for attempt in tables.attempts_of[key])


def cost_lines(tables: MemoryTables, which: CostFilter, by: Sequence[str]) -> list[CostLine]:
    """Sums of what was used, grouped and ordered by dimensions."""
    groups: defaultdict[tuple[Any, ...], list[Delta]] = defaultdict(list)
    names = [name for name in (BY_DAY, *DIMENSIONS) if name in by]
    for entry in entries(tables, which):
        groups[tuple(_dimension(entry, name) for name in names)].append(entry)
    lines = [
        _cost_line(found, dict(zip(names, group, strict=True)))
        for group, found in sorted(groups.items(), key=lambda item: str(item[0]))
    ]
    return [c for c in lines if c.used.attempts or c.used.collapsed or c.used.posted_nano_usd]


def entries(tables: MemoryTables, which: CostFilter) -> list[Delta]:
    """The sums and deltas that are meant."""
    since, until = which.period
    sums = [Delta(*name, found) for name, found in tables.quarter_sums.items()]
    return [
        entry
        for entry in (*sums, *tables.deltas)
        if (since is None or since <= entry.starts_at)
        and (until is None or entry.starts_at < until)
        and all(
            value in (None, getattr(entry.key, name) or "")
            for name, value in asdict(which).items()
            if name in DIMENSIONS
        )
    ]


def _dimension(entry: Delta, name: str) -> Any:
    return entry.starts_at.date() if name == BY_DAY else getattr(entry.key, name)


def _cost_line(found: Sequence[Delta], group: dict[str, Any]) -> CostLine:
    return CostLine(
        **group,
        used=sum((entry.measures for entry in found), NOTHING),
        succeeded=sum(e.measures.attempts for e in found if e.key.outcome == "succeeded"),
        failed_nano_usd=sum(e.measures.posted_nano_usd for e in found if e.key.outcome == "failed"),
        retry_nano_usd=sum(e.measures.posted_nano_usd for e in found if e.key.kind == "retry"),
        repair_nano_usd=sum(e.measures.posted_nano_usd for e in found if e.key.kind == "repair"),
    )


def _proven(measures: Measures) -> Measures:
    """Without what submissions saved: that was what their call cost when they were answered."""
    return replace(measures, saved_nano_usd=0)


def _wrong_days(tables: MemoryTables, day: date) -> int:
    """How many sums of a day are not those of its quarter hours."""
    left: defaultdict[SumKey, Measures] = defaultdict(lambda: NOTHING)
    for (starts_at, key), measures in tables.quarter_sums.items():
        if starts_at.date() == day:
            left[key] += measures
    for (of_day, key), measures in tables.day_sums.items():
        if of_day == day:
            left[key] += -measures
    return sum(found != NOTHING for found in left.values())


def _wrong_budgets(
    tables: MemoryTables, day: date, by_rows: Sequence[Delta], deltas: Sequence[Delta]
) -> int:
    left: defaultdict[int, int] = defaultdict(int)
    for sign, entries in ((1, by_rows), (-1, deltas)):
        for entry in entries:
            for budget_id in entry.budget_ids:
                left[budget_id] += sign * entry.measures.posted_nano_usd
    for (budget_id, of_day), amount in tables.budget_sums.items():
        if of_day == day:
            left[budget_id] -= amount
    return sum(found != 0 for found in left.values())


def _missing_rows(tables: MemoryTables, since: datetime, until: datetime) -> int:
    """Calls of a time that have not exactly one row for each of their attempts."""
    keys = {c.key for c in tables.calls.values() if since <= c.created_at < until}
    keys |= {a.key for a in tables.attempts.values() if since <= a.started_at < until}
    return sum(
        sorted(a.attempt for a in tables.attempts_of[key])
        != [*range(1, tables.calls[key].attempt + 1)]
        for key in keys
    )


def _seal(
    tables: MemoryTables, since: datetime, until: datetime, open_quarters: set[datetime]
) -> None:
    starts_at = since
    while starts_at < until:
        if starts_at not in open_quarters and starts_at not in tables.seals:
            tables.seals[starts_at] = totals(tables, starts_at)
        starts_at += QUARTER


def totals(tables: MemoryTables, starts_at: datetime) -> tuple[int, int]:
    """Attempts and posted amount of a quarter hour, by the sums."""
    found = [m for (quarter, _), m in tables.quarter_sums.items() if quarter == starts_at]
    return sum(m.attempts for m in found), sum(m.posted_nano_usd for m in found)


def _sealed(tables: MemoryTables, since: datetime, until: datetime) -> int:
    return sum(since <= starts_at < until for starts_at in tables.seals)


def broken_seals(tables: MemoryTables) -> int:
    """Days that are wholly sealed, and whose sums are not those that were sealed."""
    days = {starts_at.date() for starts_at in tables.seals}
    return sum(_is_broken(tables, day) for day in days)


def _is_broken(tables: MemoryTables, day: date) -> bool:
    starts_at = datetime.combine(day, time(), UTC)
    seals = [seal for at, seal in tables.seals.items() if starts_at <= at < starts_at + DAY]
    found = [m for (of_day, _), m in tables.day_sums.items() if of_day == day]
    sums = (sum(m.attempts for m in found), sum(m.posted_nano_usd for m in found))
    sealed = (sum(seal[0] for seal in seals), sum(seal[1] for seal in seals))
    return len(seals) == QUARTERS_PER_DAY and sums != sealed


def attempts_by_outcome(tables: MemoryTables) -> dict[str, int]:
    """Posted attempts by outcome, out of sums and deltas."""
    counts: defaultdict[str, int] = defaultdict(int)
    entries = [Delta(*name, found) for name, found in tables.quarter_sums.items()]
    for entry in (*entries, *tables.deltas):
        counts[entry.key.outcome] += entry.measures.attempts
    return {outcome: count for outcome, count in counts.items() if count}


def posted_to(tables: MemoryTables, budget_id: int) -> int:
    """What attempts have posted to a budget, out of sums and deltas."""
    in_sums = sum(amount for (of, _), amount in tables.budget_sums.items() if of == budget_id)
    deltas = (d.measures.posted_nano_usd for d in tables.deltas if budget_id in d.budget_ids)
    return in_sums + sum(deltas)


def posted_in_total(tables: MemoryTables) -> int:
    """What all attempts have posted, out of sums and deltas."""
    sums = (found.posted_nano_usd for found in tables.quarter_sums.values())
    return sum(sums) + sum(delta.measures.posted_nano_usd for delta in tables.deltas)
