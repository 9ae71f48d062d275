"""The fifth scenario: a failing provider, retries, dead letters and a redrive."""

from collections.abc import Sequence

from callgate import LLMRequest, Message
from callgate.client import Handle
from callgate.domain.errors import CallFailed
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.provider import Failure
from callgate.domain.reports import CallFilter
from devkit.demo.scenario import ORG, SHORT_TIMEOUT_S, DemoRun, expect
from devkit.simulator.simulator import Kind, Match, Rule, Step

MODEL = "flaky"
ATTEMPTS_MAX = 3
RECOVERING = ("the note of Monday", "the note of Tuesday")
DYING = ("the contract", "the annex")
ERROR = Step(kind=Kind.STATUS, status=500)
BUSY = Step(kind=Kind.STATUS, status=409)
"""Does not count for the breaker, so that calls with only this answer die before the breaker opens."""


def fail_and_redrive(run: DemoRun) -> None:
    """Some calls succeed at the last attempt and others die. The provider is repaired, and the dead are redriven."""
    with run.console.scenario("5  A provider that fails and is repaired"):
        run.environment.simulator.script(
            [_rule(name, ERROR, BUSY, Step()) for name in RECOVERING]
            + [_rule(name, BUSY) for name in DYING]
        )
        before = run.environment.requests_sent()
        handles = run.submit([_request(name) for name in (*RECOVERING, *DYING)])
        run.wait(handles, "Retrying", SHORT_TIMEOUT_S)
        _check_outcome(run, handles, run.environment.requests_sent() - before)
        _redrive(run, handles[len(RECOVERING) :])


def _check_outcome(run: DemoRun, handles: Sequence[Handle], sent: int) -> None:
    failures = [_failure(handle) for handle in handles]
    dead = [failure for failure in failures if failure]
    run.counters.dead += len(dead)
    expect(
        [f is not None for f in failures] == [False] * len(RECOVERING) + [True] * len(DYING),
        f"{len(RECOVERING)} calls to recover and {len(DYING)} to die",
        f"{len(handles) - len(dead)} recovered and {len(dead)} died",
    )
    attempts = len(handles) * ATTEMPTS_MAX
    expect(sent == attempts, f"{attempts} provider requests", f"{sent} were sent")
    run.console.fact(
        f"{len(RECOVERING)} calls failed twice (500, 409) and succeeded at the third attempt"
    )
    run.console.fact(f"{len(DYING)} calls are dead letters after {ATTEMPTS_MAX} attempts")
    groups = run.environment.client.operations.dead_groups(CallFilter(org_id=ORG))
    for group in groups:
        failure = Failure.from_json(group.sample_error)
        run.console.note(
            f"{group.count} calls to {group.provider}/{group.model} died of {failure.code}:"
            f" {failure.message}"
        )
    expect(
        sum(group.count for group in groups) == len(DYING),
        f"{len(DYING)} dead letters in the list",
        f"the list has {sum(group.count for group in groups)}",
    )


def _redrive(run: DemoRun, dead: Sequence[Handle]) -> None:
    run.environment.simulator.script([])
    client = run.environment.client
    submitted, refused = client.redrive([handle.key for handle in dead])
    created = [answer for answer in submitted if answer.outcome is SubmitOutcome.CREATED]
    expect(
        len(created) == len(dead), f"{len(dead)} calls redriven", f"these were refused: {refused}"
    )
    run.counters.redriven += len(created)
    handles = [client.handle(answer.key.task_id) for answer in created]
    run.wait(handles, "Redriving", SHORT_TIMEOUT_S)
    failed = [failure for handle in handles if (failure := _failure(handle))]
    expect(not failed, "every redriven call to succeed", f"{len(failed)} failed: {failed}")
    run.console.fact(f"the provider was repaired, and {len(handles)} redriven calls succeeded")


def _failure(handle: Handle) -> CallFailed | None:
    try:
        handle.get(timeout=0)
    except CallFailed as failed:
        return failed
    return None


def _rule(name: str, *steps: Step) -> Rule:
    return Rule(match=Match(model=MODEL, text=name), reply=list(steps))


def _request(name: str) -> LLMRequest:
    return LLMRequest(
        org_id=ORG,
        call_type="summary",
        provider="simulated",
        model=MODEL,
        messages=(Message(role="user", content=f"Summarise {name} in one sentence."),),
    )
