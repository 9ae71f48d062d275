"""The fourth act: a tenant whose budget is too small, watched while its calls compete for it."""

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
from devkit.demo.progress import SHORT_TIMEOUT_S, DemoProgress, expect
from devkit.simulator.simulator import Match, ReportedUsage, Rule, Step, Uniform

ORG = "small-shop"
CALLS = 24
CALLS_THAT_FIT = CALLS // 2
LOOK_S = 0.02
MODEL = "steady"
USED = requests.Usage(input_tokens=300, output_tokens=20)
"""What each of these calls uses; equal for all, so that it is known beforehand how many fit."""


def overrun(play: DemoProgress) -> None:
    """Submit twice as many calls as the budget can pay."""
    with play.screen.act(f"4  A budget for {CALLS_THAT_FIT} of {CALLS} calls"):
        requests = [_request(number) for number in range(CALLS)]
        hold, cost = _prices(play.stage.client, requests[0])
        # The last call that fits needs room for its whole hold when those before it have been paid.
        limit = (CALLS_THAT_FIT - 1) * cost + hold
        play.stage.client.operations.set_budget(ORG, ORG_SCOPE, Window.DAY, limit)
        _script(play)
        play.screen.note(
            f"limit {usd(limit)}; each call holds {usd(hold)} and then costs {usd(cost)}"
        )
        before = play.stage.sent()
        handles = play.submit(requests)
        with BudgetWatch(play.stage.client, handles) as watch:
            play.wait(handles, "Competing for the budget", SHORT_TIMEOUT_S)
        _judge(play, handles, watch, limit, play.stage.sent() - before)


def _judge(
    play: DemoProgress, handles: Sequence[Handle], watch: "BudgetWatch", limit: int, sent: int
) -> None:
    refusals = [error for handle in handles if (error := _refusal(handle))]
    admitted = len(handles) - len(refusals)
    play.tally.refused += len(refusals)
    (budget,) = play.stage.client.operations.budgets(ORG)
    expect(
        (admitted, sent) == (CALLS_THAT_FIT, CALLS_THAT_FIT),
        f"{CALLS_THAT_FIT} calls to be admitted and sent",
        f"{admitted} were admitted and {sent} sent",
    )
    expect(
        watch.most_nano_usd <= limit,
        f"spent + held never above {usd(limit)}",
        f"they were {usd(watch.most_nano_usd)}",
    )
    expect(
        budget.spent_nano_usd <= limit and budget.reserved_nano_usd == 0,
        f"at most {usd(limit)} spent and nothing held at the end",
        f"{usd(budget.spent_nano_usd)} are spent and {usd(budget.reserved_nano_usd)} held",
    )
    play.screen.fact(
        f"{admitted} admitted and sent, {len(refusals)} refused as {BudgetExhausted.__name__};"
        f" {len(watch.waited)} waited for room first"
    )
    play.screen.note(f"“{refusals[0]}”")
    play.screen.fact(
        f"spent + held was {usd(watch.most_nano_usd)} at most, in {watch.looks} looks;"
        f" {usd(budget.spent_nano_usd)} spent in the end"
    )


def _refusal(handle: Handle) -> BudgetExhausted | None:
    try:
        handle.get(timeout=0)
    except BudgetExhausted as refused:
        return refused
    return None


def _request(number: int) -> LLMRequest:
    # Texts of equal length have equal holds.
    ticket = f"Ticket {number:02d}: the parcel arrived two days late. Praise or complaint?"
    return LLMRequest(
        org_id=ORG,
        call_type="classification",
        provider="simulated",
        model=MODEL,
        messages=(Message(role="user", content=ticket),),
    )


def _prices(client: Client, request: LLMRequest) -> tuple[int, int]:
    """What such a call holds, and what it costs in the end, in nano-USD, as the gate itself computes it."""
    costs, now = CostCalculator(client.catalogue), datetime.now(UTC)
    request = with_output_bound(request, client.catalogue)
    bound = TokenEstimator(client.catalogue).input_bound(request)
    cost = costs.cost(request.provider, request.model, USED, ServiceTier.DEFAULT, now)
    return costs.worst_case(request, bound.tokens, now).nano_usd, cost.nano_usd


def _script(play: DemoProgress) -> None:
    usage = ReportedUsage(prompt_tokens=USED.input_tokens, completion_tokens=USED.output_tokens)
    step = Step(text="complaint", usage=usage, latency_s=Uniform(low_s=0.1, high_s=0.3))
    play.stage.simulator.script([Rule(match=Match(model=MODEL), reply=[step])])


class BudgetWatch:
    """
    Looks at a budget again and again inside a `with`, from a thread of its own.

    Raises on leaving whatever ended the looking early.
    """

    def __init__(self, client: Client, handles: Sequence[Handle]) -> None:
        self.most_nano_usd = 0
        self.looks = 0
        self.waited: set[str] = set()
        """Calls that were seen waiting for money held by others."""
        self._client = client
        self._keys = [handle.key for handle in handles]
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="budget watch", daemon=True)

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
            while not self._stopping.wait(LOOK_S):
                self._look()
            self._look()
        except Exception as exc:
            # Told to the owner in __exit__: a watch that ended early has seen nothing.
            self._error = exc

    def _look(self) -> None:
        (budget,) = self._client.operations.budgets(ORG)
        together = budget.spent_nano_usd + budget.reserved_nano_usd
        self.most_nano_usd = max(self.most_nano_usd, together)
        self.looks += 1
        for view in self._client.ledger.read(self._keys):
            if view and view.state is CallState.WAITING and _is_held(view.error):
                self.waited.add(view.key.task_id)


def _is_held(error: str | None) -> bool:
    return error is not None and json.loads(error).get("code") == "budget_held"
