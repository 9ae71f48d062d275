"""
Overspend stress: many processes against one organisation whose budgets fit a few calls, in rounds.

One trial works directly on the ledger, another through clients and workers. Each round has a daily and a monthly budget
of the organisation, and one budget of each call type. A different one is the tightest in each round; its limit is a
multiple of a hold, or one nano-USD less. No limit may be exceeded, and no call may be rejected too early: if only the
holds of other calls are in the way, it must wait, and a rejected call must still not fit at the end. In half of the
rounds on the ledger every call costs its hold, so that the number of calls that fit is known.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from callgate.domain.budgets import Window
from callgate.services.audit import audit
from devkit.simulator.simulator import ReportedUsage, Rule, Step
from tests.chaos.budget_hammer import HOLD_NANO_USD
from tests.chaos.environment import END_MAX_S, Environment
from tests.chaos.evaluation import evaluate
from tests.chaos.mix import CHAT
from tests.support.deployment import until

SCOPES = (
    ("org", Window.DAY),
    ("org", Window.MONTH),
    ("call_type:{a}", Window.DAY),
    ("call_type:{b}", Window.MONTH),
)
CALLS_OF_ORGS = """
SELECT org_id, state, error::json ->> 'scope' AS scope, error::json ->> 'window' AS "window",
       (error::json ->> 'requested_nano_usd')::bigint AS requested,
       (error::json ->> 'limit_nano_usd')::bigint - (error::json ->> 'spent_nano_usd')::bigint AS unspent
  FROM llm_call
 WHERE org_id = ANY (:orgs)
"""
HELD_OF_ORGS = "SELECT sum(reserved_nano_usd)::bigint FROM budget WHERE org_id = ANY (:orgs)"
TIGHT_HOLDS_MIN, WIDE_HOLDS = 3, 8


@dataclass(frozen=True, slots=True)
class Stress:
    """The result of all rounds."""

    rounds: int
    processes: int
    submissions: int
    decisions: int
    """Reservations with an answer (reserved, held or rejected); 0 if workers made them."""
    succeeded: int
    rejected: int
    overrun_nano_usd: int
    """The largest spent + held - limit of any budget at any time."""
    headroom_max_nano_usd: int
    """The largest headroom at the end in a budget that rejected a call."""
    hold_nano_usd: int
    """The smallest hold: the headroom must be less."""
    exact_fits: int
    """The number of budgets without any headroom at the end."""
    drift_nano_usd: int
    samples: int
    violations: tuple[str, ...]


def stress_ledger(
    environment: Environment, *, rounds: int, calls: int = 512, processes: int = 8
) -> Stress:
    """Run rounds of `calls` calls directly on the ledger."""
    orgs = [_new_org(environment, n, ("a", "b"), HOLD_NANO_USD) for n in range(rounds)]
    reports = [
        environment.deployment.folder / f"hammer-{uuid4().hex[:8]}.json" for _ in range(processes)
    ]
    exact = [org for n, org in enumerate(orgs) if n % 4 < 2]
    org_rounds = [(org, org in exact) for org in orgs]
    spec = {"rounds": org_rounds, "calls": calls // processes, "processes": processes}
    children = [
        environment.fork_server.fork(
            "tests.chaos.budget_hammer",
            environment.deployment.environ,
            report=str(report),
            seed=environment.rng.randrange(10**9),
            **spec,
        )
        for report in reports
    ]
    until(
        lambda: any(child.code for child in children) or not any(c.is_alive() for c in children),
        rounds * END_MAX_S,
        lambda: "the processes of the stress do not end",
    )
    for child in children:
        assert not child.code, f"a process ended with {child.code}:\n{child.output()}"
    counts = sum((Counter(json.loads(r.read_text())) for r in reports), Counter[str]())
    decisions = counts["reserved"] + counts["held"] + counts["rejected"]
    return _result(
        environment, orgs, processes, HOLD_NANO_USD, decisions, _inexact_rounds(environment, exact)
    )


def _inexact_rounds(environment: Environment, orgs: Sequence[str]) -> Iterable[str]:
    """Return a violation for each exact round in which every budget still fits a hold."""
    sql = "SELECT limit_nano_usd, limit_nano_usd - spent_nano_usd FROM budget WHERE org_id = :org"
    for org in orgs:
        headrooms = [tuple(row) for row in environment.deployment.rows(sql, org=org)]
        if not any(headroom == limit % HOLD_NANO_USD for limit, headroom in headrooms):
            yield f"calls of {HOLD_NANO_USD} nano-USD left (limit, headroom) {headrooms}"


def stress_workers(
    environment: Environment, *, rounds: int, calls: int = 504, clients: int = 8
) -> Stress:
    """Run rounds of `calls` calls, submitted at once by client processes and run by workers."""
    answer = Step(latency_s=0.05, usage=ReportedUsage(completion_tokens=50))
    environment.deployment.provider.script([Rule(reply=[answer])])
    hold = environment.deployment.hold_of(environment.deployment.request("any", "question 1"))
    # The exact fits need calls with one and the same hold.
    environment.posted_nano_usd = None
    environment.start_workers(2)
    orgs = []
    for number in range(rounds):
        orgs.append(_new_org(environment, number, ("answer", "summary"), hold))
        size = calls // clients
        started = [
            environment.client(
                orgs[-1:],
                call_types=["answer", "summary"],
                targets=[CHAT],
                forms=["plain"],
                batch=size,
                total_max=size,
                offset=size * n,
                repeat=1,
                links=False,
            )
            for n in range(clients)
        ]
        for child in started:
            child.wait(2 * END_MAX_S)
    violations = evaluate(environment.observe(recover_s=0)).violations
    return _result(environment, orgs, clients, hold, 0, violations)


def _new_org(environment: Environment, number: int, call_types: tuple[str, str], hold: int) -> str:
    """Create an organisation whose budgets fit a few holds. The round number chooses the tightest budget."""
    org = environment.deployment.org(None)
    names = dict(zip("ab", call_types, strict=True))
    for place, (scope, window) in enumerate(SCOPES):
        is_tight = place == number % len(SCOPES)
        holds = TIGHT_HOLDS_MIN + number % 4 if is_tight else WIDE_HOLDS + place
        limit = holds * hold - number % 2
        environment.deployment.client.operations.set_budget(
            org, scope.format(**names), window, limit
        )
    return org


def _result(
    environment: Environment,
    orgs: Sequence[str],
    processes: int,
    hold: int,
    decisions: int,
    violations: Iterable[str],
) -> Stress:
    calls = environment.deployment.rows(CALLS_OF_ORGS, orgs=list(orgs))
    headroom = _headroom(environment, orgs)
    rejected = [call for call in calls if call.state == "rejected"]
    states = Counter(call.state for call in calls)
    drift = audit(environment.deployment.client.operations).drift_nano_usd
    overrun = environment.overrun_nano_usd()
    held = environment.deployment.rows(HELD_OF_ORGS, orgs=list(orgs))[0][0]
    early = [call for call in rejected if _is_early(call, headroom)]
    checks = {
        f"a limit was exceeded by {overrun} nano-USD": overrun > 0,
        f"{len(early)} calls were rejected though they fit": bool(early),
        f"audit drift {drift} nano-USD": drift != 0,
        f"{held} nano-USD are still held": held != 0,
        f"calls are in states {dict(states)}": set(states) != {"succeeded", "rejected"},
    }
    return Stress(
        rounds=len(orgs),
        processes=processes,
        submissions=len(calls),
        decisions=decisions,
        succeeded=states["succeeded"],
        rejected=len(rejected),
        overrun_nano_usd=overrun,
        headroom_max_nano_usd=max((headroom[_budget_of(call)] for call in rejected), default=-1),
        hold_nano_usd=hold,
        exact_fits=sum(n == 0 for n in headroom.values()),
        drift_nano_usd=drift,
        samples=environment.budgets.samples,
        violations=(*violations, *(text for text, is_violated in checks.items() if is_violated)),
    )


def _headroom(environment: Environment, orgs: Sequence[str]) -> dict[tuple[str, str, str], int]:
    """Return the headroom of every budget, by organisation, scope and window."""
    budgets = environment.deployment.rows(
        "SELECT * FROM budget WHERE org_id = ANY (:orgs)", orgs=list(orgs)
    )
    return {
        (b.org_id, b.scope, b.window): b.limit_nano_usd - b.spent_nano_usd - b.reserved_nano_usd
        for b in budgets
    }


def _budget_of(call: Any) -> tuple[str, str, str]:
    """Return the budget that rejected a call."""
    return call.org_id, call.scope, call.window


def _is_early(call: Any, headroom: Mapping[tuple[str, str, str], int]) -> bool:
    """Tell whether a rejected call fits at the end, or would have fitted without the holds of other calls."""
    return bool(call.requested <= max(headroom[_budget_of(call)], call.unspent))
