"""
Overspend stress: many processes against one tenant whose limits fit a few calls, round after round.

Once on the ledger itself, where the decisions are made, and once through clients and workers. Each round has a daily
and a monthly budget of the organisation, and one of each call type; they take turns in being the tightest, and their
limits are exact multiples of a hold, or one nano-USD less. No limit may be passed, ever. And nobody may be refused too
early: whoever only has to wait for others is held, and tried again; whoever was rejected must still not fit when all is
over. In half of the rounds on the ledger all calls cost what they hold, so that how many fit is known to the call.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from callgate.domain.budgets import Window
from callgate.services.audit import audit
from devkit.simulator.simulator import ReportedUsage, Rule, Step
from tests.chaos.budget_hammer import HOLD_NANO_USD
from tests.chaos.environment import PATIENCE_S, Environment
from tests.chaos.evaluation import judge
from tests.support.deployment import until

SCOPES = (
    ("org", Window.DAY),
    ("org", Window.MONTH),
    ("call_type:{a}", Window.DAY),
    ("call_type:{b}", Window.MONTH),
)
TIGHT_HOLDS_MIN, WIDE_HOLDS = 3, 8


@dataclass(frozen=True, slots=True)
class Stress:
    """What all rounds came to."""

    rounds: int
    processes: int
    submissions: int
    decisions: int
    """Reservations that were answered: reserved, held or rejected. 0 where only workers know."""
    succeeded: int
    rejected: int
    overrun_nano_usd: int
    """The greatest spent + held - limit that any budget ever showed."""
    headroom_nano_usd_max: int
    """The most that was left in the budget that rejected a call, when all was over."""
    hold_nano_usd: int
    """The smallest hold: what the headroom has to stay below, for no call is smaller."""
    exact_fits: int
    """Budgets that were used up to the last nano-USD."""
    drift_nano_usd: int
    samples: int
    violations: tuple[str, ...]


def stress_ledger(
    environment: Environment, *, rounds: int, calls: int = 512, clerks: int = 8
) -> Stress:
    """Have clerks decide about `calls` calls in each round, straight on the ledger."""
    orgs = [_tenant(environment, n, ("a", "b"), HOLD_NANO_USD) for n in range(rounds)]
    reports = [
        environment.deployment.folder / f"clerk-{uuid4().hex[:8]}.json" for _ in range(clerks)
    ]
    exact = [org for n, org in enumerate(orgs) if n % 4 < 2]
    turns = [(org, org in exact) for org in orgs]
    spec = {"rounds": turns, "calls": calls // clerks, "clerks": clerks}
    children = [
        environment.fork_server.fork(
            "tests.chaos.budget_hammer",
            environment.deployment.environ,
            report=str(report),
            seed=environment.dice.randrange(10**9),
            **spec,
        )
        for report in reports
    ]
    until(
        lambda: any(child.code for child in children) or not any(c.is_alive() for c in children),
        rounds * PATIENCE_S,
        lambda: "the clerks do not come to an end",
    )
    for child in children:
        assert not child.code, f"a clerk ended with {child.code}:\n{child.output()}"
    counts = sum((Counter(json.loads(r.read_text())) for r in reports), Counter[str]())
    decisions = counts["reserved"] + counts["held"] + counts["rejected"]
    return _judged(
        environment, orgs, clerks, HOLD_NANO_USD, decisions, _misfits(environment, exact)
    )


def _misfits(environment: Environment, orgs: Sequence[str]) -> Iterable[str]:
    """Complain of exact rounds in which no budget is used up to the last whole hold."""
    sql = "SELECT limit_nano_usd, limit_nano_usd - spent_nano_usd FROM budget WHERE org_id = :org"
    for org in orgs:
        rests = [tuple(row) for row in environment.deployment.rows(sql, org=org)]
        if not any(rest == limit % HOLD_NANO_USD for limit, rest in rests):
            yield f"calls of {HOLD_NANO_USD} nano-USD left (limit, rest) {rests}"


def stress_workers(
    environment: Environment, *, rounds: int, calls: int = 504, clients: int = 8
) -> Stress:
    """Have client processes submit `calls` calls at once in each round, and real workers run them."""
    answer = Step(latency_s=0.05, usage=ReportedUsage(completion_tokens=50))
    environment.deployment.provider.script([Rule(reply=[answer])])
    hold = environment.deployment.hold_of(environment.deployment.request("any", "question 1"))
    environment.fleet(2)
    orgs = []
    for number in range(rounds):
        orgs.append(_tenant(environment, number, ("answer", "summary"), hold))
        size = calls // clients
        started = [
            environment.client(
                orgs[-1:],
                call_types=["answer", "summary"],
                batch=size,
                total_max=size,
                offset=size * n,
                repeat=1,
                links=False,
            )
            for n in range(clients)
        ]
        for child in started:
            child.wait(2 * PATIENCE_S)
    violations = judge(environment.evidence(recover_s=0)).violations
    return _judged(environment, orgs, clients, hold, 0, violations)


def _tenant(environment: Environment, number: int, call_types: tuple[str, str], hold: int) -> str:
    """Make an organisation whose budgets fit a few holds, the tightest one by the number of the round."""
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


def _judged(
    environment: Environment,
    orgs: Sequence[str],
    processes: int,
    hold: int,
    decisions: int,
    violations: Iterable[str],
) -> Stress:
    calls = environment.deployment.rows(
        "SELECT org_id, state, error::json ->> 'scope' AS scope, error::json ->> 'window' AS \"window\","
        " (error::json ->> 'requested_nano_usd')::bigint AS requested,"
        " (error::json ->> 'limit_nano_usd')::bigint - (error::json ->> 'spent_nano_usd')::bigint AS unspent"
        " FROM llm_call"
        " WHERE org_id = ANY (:orgs)",
        orgs=list(orgs),
    )
    budgets = environment.deployment.rows(
        "SELECT * FROM budget WHERE org_id = ANY (:orgs)", orgs=list(orgs)
    )
    left = {
        (b.org_id, b.scope, b.window): b.limit_nano_usd - b.spent_nano_usd - b.reserved_nano_usd
        for b in budgets
    }
    rejected = [c for c in calls if c.state == "rejected"]
    # It must not fit when all is over, and what others merely held must not have been the reason.
    early = [
        c for c in rejected if c.requested <= max(left[c.org_id, c.scope, c.window], c.unspent)
    ]
    states = Counter(c.state for c in calls)
    drift = audit(environment.deployment.client.operations.snapshot()).drift_nano_usd
    overrun = environment.overrun_nano_usd()
    wrong = {
        f"a limit was passed by {overrun} nano-USD": overrun > 0,
        f"{len(early)} calls were rejected though they fit": bool(early),
        f"audit drift {drift} nano-USD": drift != 0,
        f"{sum(b.reserved_nano_usd for b in budgets)} nano-USD are still held": (
            any(b.reserved_nano_usd for b in budgets)
        ),
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
        headroom_nano_usd_max=max(
            (left[c.org_id, c.scope, c.window] for c in rejected), default=-1
        ),
        hold_nano_usd=hold,
        exact_fits=sum(n == 0 for n in left.values()),
        drift_nano_usd=drift,
        samples=environment.budgets.samples,
        violations=(*violations, *(words for words, is_so in wrong.items() if is_so)),
    )
