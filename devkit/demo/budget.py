"""The fourth scenario: a budget for half of the calls, sampled while they compete for it."""

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from callgate import Client, LLMRequest, Message
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.token_estimator import TokenEstimator
from callgate.client import Handle
from callgate.domain import requests
from callgate.domain.budgets import ORG_SCOPE, Window, usd
from callgate.domain.calls import CallState
from callgate.domain.errors import BudgetExhausted
from callgate.domain.gates import with_output_bound
from callgate.domain.requests import ServiceTier
from devkit.demo.scenario import SHORT_TIMEOUT_S, DemoRun, expect
from devkit.simulator.simulator import Match, ReportedUsage, Rule, Step, Uniform

ORG = "small-shop"
CALLS = 24
CALLS_THAT_FIT = CALLS // 2
SAMPLE_INTERVAL_S = 0.02
MODEL = "steady"
USED = requests.Usage(input_tokens=300, output_tokens=20)
"""The usage of each call. It is the same for all, so the number of calls that fit is known."""


def exceed_budget(run: DemoRun) -> None:
    """Submit twice as many calls as the budget allows."""
    with run.console.scenario(f"4  A budget for {CALLS_THAT_FIT} of {CALLS} calls"):
        requests = [_request(number) for number in range(CALLS)]
        hold, cost = _prices(run.environment.client, requests[0])
        # The last call that fits needs headroom for its whole hold after the calls before it were paid.
        limit = (CALLS_THAT_FIT - 1) * cost + hold
        run.environment.client.operations.set_budget(ORG, ORG_SCOPE, Window.DAY, limit)
        _script(run)
        run.console.note(
            f"limit {usd(limit)}; each call holds {usd(hold)} and then costs {usd(cost)}"
        )
        before = run.environment.requests_sent()
        handles = run.submit(requests)
        with BudgetSampler(run.environment.client, handles) as sampler:
            run.wait(handles, "Competing for the budget", SHORT_TIMEOUT_S)
        _check_outcome(run, handles, sampler, limit, run.environment.requests_sent() - before)


def _check_outcome(
    run: DemoRun, handles: Sequence[Handle], sampler: "BudgetSampler", limit: int, sent: int
) -> None:
    refusals = [error for handle in handles if (error := _refusal(handle))]
    admitted = len(handles) - len(refusals)
    run.counters.refused += len(refusals)
    (budget,) = run.environment.client.operations.budgets(ORG)
    expect(
        (admitted, sent) == (CALLS_THAT_FIT, CALLS_THAT_FIT),
        f"{CALLS_THAT_FIT} calls to be admitted and sent",
        f"{admitted} were admitted and {sent} were sent",
    )
    expect(
        sampler.max_nano_usd <= limit,
        f"spent + held never above {usd(limit)}",
        f"they were {usd(sampler.max_nano_usd)}",
    )
    expect(
        budget.spent_nano_usd <= limit and budget.reserved_nano_usd == 0,
        f"at most {usd(limit)} spent and nothing held at the end",
        f"{usd(budget.spent_nano_usd)} is spent and {usd(budget.reserved_nano_usd)} is held",
    )
    run.console.fact(
        f"{admitted} admitted and sent, {len(refusals)} refused as {BudgetExhausted.__name__};"
        f" {len(sampler.waited)} waited for headroom first"
    )
    run.console.note(f"“{refusals[0]}”")
    run.console.fact(
        f"spent + held was {usd(sampler.max_nano_usd)} at most, in {sampler.samples} samples;"
        f" {usd(budget.spent_nano_usd)} spent at the end"
    )


def _refusal(handle: Handle) -> BudgetExhausted | None:
    try:
        handle.get(timeout=0)
    except BudgetExhausted as refused:
        return refused
    return None


def _request(number: int) -> LLMRequest:
    # Prompts of equal length have equal holds.
    ticket = f"Ticket {number:02d}: the parcel arrived two days late. Praise or complaint?"
    return LLMRequest(
        org_id=ORG,
        call_type="classification",
        provider="simulated",
        model=MODEL,
        messages=(Message(role="user", content=ticket),),
    )


def _prices(client: Client, request: LLMRequest) -> tuple[int, int]:
    """What such a call holds, and what it costs in the end, in nano-USD, as the budget check computes it."""
    costs, now = CostCalculator(client.catalogue), datetime.now(UTC)
    request = with_output_bound(request, client.catalogue)
    bound = TokenEstimator(client.catalogue).input_bound(request)
    cost = costs.cost(request.provider, request.model, USED, ServiceTier.DEFAULT, now)
    return costs.worst_case(request, bound.tokens, now).nano_usd, cost.nano_usd


def _script(run: DemoRun) -> None:
    usage = ReportedUsage(prompt_tokens=USED.input_tokens, completion_tokens=USED.output_tokens)
    step = Step(text="complaint", usage=usage, latency_s=Uniform(low_s=0.1, high_s=0.3))
    run.environment.simulator.script([Rule(match=Match(model=MODEL), reply=[step])])


class BudgetSampler:
    """
    Samples a budget in a thread, inside a `with`.

    An error of the thread is raised on leaving the `with`.
    """

    def __init__(self, client: Client, handles: Sequence[Handle]) -> None:
        self.max_nano_usd = 0
        self.samples = 0
        self.waited: set[str] = set()
        """The task ids of calls that were seen waiting for money that other calls hold."""
        self._client = client
        self._keys = [handle.key for handle in handles]
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="budget sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(SHORT_TIMEOUT_S)
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(SAMPLE_INTERVAL_S):
                self._sample()
            self._sample()
        except Exception as exc:
            # Raised by `__exit__`: without it, a sampler that ended early would find nothing wrong.
            self._error = exc

    def _sample(self) -> None:
        (budget,) = self._client.operations.budgets(ORG)
        committed = budget.spent_nano_usd + budget.reserved_nano_usd
        self.max_nano_usd = max(self.max_nano_usd, committed)
        self.samples += 1
        for view in self._client.ledger.read(self._keys):
            if view and view.state is CallState.WAITING and _is_held(view.error):
                self.waited.add(view.key.task_id)


def _is_held(error: str | None) -> bool:
    return error is not None and json.loads(error).get("code") == "budget_held"
