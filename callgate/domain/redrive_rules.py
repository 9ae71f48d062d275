"""
The rules of redrives: how many calls may be released now, what fits the cap on money, when one stops by itself.

The SQL functions `take_redrive_v1` and `release_redrive_v1` follow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from callgate.domain.calls import CallKey
from callgate.domain.errors import (
    CallgateError,
    CountDiffers,
    RedriveStateDiffers,
    SecondPaymentNotAllowed,
)
from callgate.domain.redrives import (
    CATCH_UP_S,
    OPEN_CALLS_MAX,
    STEP_CALLS_MAX,
    Redrive,
    RedriveCall,
    RedriveOrg,
    RedriveOutcome,
    RedriveState,
    RedriveTerms,
    StartRedrive,
    UnknownBills,
)
from callgate.domain.reports import CallFilter


def submission_id_of(redrive_id: UUID, key: CallKey) -> UUID:
    """The submission by which a redrive releases a call: always the same one."""
    return uuid5(redrive_id, key.task_id)


def may_release(
    rate_per_min: float | None, free_at: datetime | None, now: datetime, *, open_calls: int
) -> int:
    """
    How many calls may be released now.

    Args:
        free_at: When the rate allows the next one; None: none was released yet.
        open_calls: Released calls that are open.
    """
    room = min(STEP_CALLS_MAX, OPEN_CALLS_MAX - open_calls)
    if rate_per_min is not None:
        since = max(free_at or now, now - timedelta(seconds=CATCH_UP_S))
        if since > now:
            return 0
        room = min(room, int((now - since).total_seconds() * rate_per_min / 60) + 1)
    return max(room, 0)


def free_after(
    rate_per_min: float | None, free_at: datetime | None, now: datetime, *, released: int
) -> datetime | None:
    """When the rate allows the next call after so many were released."""
    if rate_per_min is None or released == 0:
        return free_at
    since = max(free_at or now, now - timedelta(seconds=CATCH_UP_S))
    return since + timedelta(seconds=released * 60 / rate_per_min)


def fits_cap(cap_nano_usd: int | None, committed_nano_usd: int, worst_case_nano_usd: int) -> bool:
    """True if a call may be released under a cap on money. An exact fit passes."""
    return cap_nano_usd is None or committed_nano_usd + worst_case_nano_usd <= cap_nano_usd


def fails_too_often(terms: RedriveTerms, *, ended: int, failed_again: int) -> bool:
    """True if a redrive stops by itself, by what ended since it was started or resumed."""
    return ended >= terms.stop_min and failed_again >= terms.stop_share * ended


def refusal_to_start(redrive: Redrive, start: StartRedrive) -> CallgateError | None:
    """Why a redrive cannot be started."""
    if redrive.state is not RedriveState.PLANNED:
        return state_differs(redrive, RedriveState.PLANNED)
    if redrive.unknown and start.unknown_bills is UnknownBills.REFUSE:
        return SecondPaymentNotAllowed(
            f"the bills of {redrive.unknown} calls are unknown, so they may be paid twice:"
            " allow that (--pay-twice), or leave these calls out (--skip-unknown)"
        )
    left_out = redrive.unknown if start.unknown_bills is UnknownBills.SKIP else 0
    calls = redrive.counts.pending - left_out
    if calls != start.expected_calls:
        return CountDiffers(start.expected_calls, calls)
    return None


def state_differs(redrive: Redrive, *expected: RedriveState) -> RedriveStateDiffers:
    """The error for a change that the redrive's state does not allow."""
    states = " or ".join(expected)
    return RedriveStateDiffers(f"redrive {redrive.redrive_id} is {redrive.state}, not {states}")


def selection_json(which: CallFilter) -> dict[str, object]:
    """The filter of a redrive, as it is stored: the fields that are set."""
    fields: dict[str, object] = {
        "org_id": which.org_id,
        "state": which.state and which.state.value,
        "call_type": which.call_type,
        "provider": which.provider,
        "model": which.model,
        "end_reason": which.end_reason,
        "error_fingerprint": which.error_fingerprint,
        "call_ids": [str(call_id) for call_id in which.call_ids],
        "since": which.since and which.since.isoformat(),
        "until": which.until and which.until.isoformat(),
    }
    return {name: value for name, value in fields.items() if value}


def sums_by_org(calls: Iterable[RedriveCall]) -> list[RedriveOrg]:
    """The calls of a redrive by organisation, the most expensive first."""
    groups: dict[str, list[RedriveCall]] = {}
    for call in calls:
        groups.setdefault(call.org_id, []).append(call)
    found = [_org(org_id, of_org) for org_id, of_org in groups.items()]
    return sorted(found, key=lambda org: (-org.worst_case_nano_usd, org.org_id))


def _org(org_id: str, calls: Sequence[RedriveCall]) -> RedriveOrg:
    pending = [call for call in calls if call.outcome is RedriveOutcome.PENDING]
    return RedriveOrg(
        org_id=org_id,
        calls=len(calls),
        pending=len(pending),
        worst_case_nano_usd=sum(call.worst_case_nano_usd or 0 for call in pending),
        unknown=sum(call.has_unknown_bill for call in pending),
        posted_nano_usd=sum(call.posted_nano_usd or 0 for call in calls),
    )
