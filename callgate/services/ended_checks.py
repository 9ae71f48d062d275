"""The check of calls that ended without an answer a short while ago."""

from __future__ import annotations

from callgate.domain.budgets import usd
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.remedies import Concerns, redrive_todo, remedy_of
from callgate.domain.reports import EndReason, RecentEnd
from callgate.services.doctor import NAMED_MAX, Check, Seen, named, warning

ORGS_MAX = 500
CALLS_MAX = 20
AGE_S = 3_600.0
NOW_S = 900.0
"""What is refused so lately is likely still refused."""
BY_OPERATOR = frozenset(EndReason)


def ended_check(operations: OperationsPort) -> Check:
    """Whether the newest calls of organisations ended without an answer, and why."""
    return Check("ended calls", lambda: _ended(operations), needs="schema", may_be_hidden=True)


def ended_lately(operations: OperationsPort, age_s: float = AGE_S) -> list[RecentEnd]:
    """How the newest calls of organisations ended without an answer."""
    return operations.recent_ends(orgs_max=ORGS_MAX, calls_max=CALLS_MAX, age_s=age_s)


def _ended(operations: OperationsPort) -> Seen:
    found = ended_lately(operations)
    found = [end for end in found if end.reason not in BY_OPERATOR]
    scope = f"of the last hour, the newest {CALLS_MAX} of each organisation"
    if not found:
        return Seen(f"none ended without an answer ({scope})")
    todos = dict.fromkeys(f"{end.reason}: {_remedy(end)}" for end in found[:NAMED_MAX])
    if any(end.state == "dead" for end in found) and "redrive" not in " ".join(todos):
        todos[redrive_todo()] = None
    return warning(f"{named([_told(end) for end in found])} ({scope})", " ".join(todos))


def _told(end: RecentEnd) -> str:
    others = f" and {end.orgs - 1} more organisations" if end.orgs > 1 else ""
    return f"{end.calls} {end.state} with {end.reason}, of {end.org_id}{others}"


def _remedy(end: RecentEnd) -> str:
    needed = "" if end.needed_nano_usd is None else usd(end.needed_nano_usd)
    fingerprint = end.error_fingerprint if end.fingerprints == 1 else None
    about = Concerns(
        end.provider,
        end.model,
        fingerprint=fingerprint or "",
        needed=needed,
        org_id=end.org_id,
    )
    return remedy_of(end.reason, about)
