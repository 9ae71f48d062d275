"""The fifth act: a provider that fails, retries, dead letters, and a redrive."""

from collections.abc import Sequence

from callgate import LLMRequest, Message
from callgate.client import Handle
from callgate.domain.errors import CallFailed
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.provider import Failure
from callgate.domain.reports import CallFilter
from devkit.demo.progress import ORG, SHORT_TIMEOUT_S, DemoProgress, expect
from devkit.simulator.simulator import Kind, Match, Rule, Step

MODEL = "flaky"
ATTEMPTS_MAX = 3
SHAKY, BROKEN = ("the letter of Monday", "the letter of Tuesday"), ("the contract", "the annex")
ERROR = Step(kind=Kind.STATUS, status=500)
BUSY = Step(kind=Kind.STATUS, status=429)
"""Says nothing against the provider: calls that meet only this die before its breaker opens."""


def fail_and_heal(play: DemoProgress) -> None:
    """Let some calls succeed at the last attempt and others die; heal the provider, and redrive."""
    with play.screen.act("5  A provider that fails, and is repaired"):
        play.stage.simulator.script(
            [_rule(name, ERROR, BUSY, Step()) for name in SHAKY]
            + [_rule(name, BUSY) for name in BROKEN]
        )
        before = play.stage.sent()
        handles = play.submit([_request(name) for name in (*SHAKY, *BROKEN)])
        play.wait(handles, "Trying again and again", SHORT_TIMEOUT_S)
        _judge(play, handles, play.stage.sent() - before)
        _redrive(play, handles[len(SHAKY) :])


def _judge(play: DemoProgress, handles: Sequence[Handle], sent: int) -> None:
    failures = [_failure(handle) for handle in handles]
    dead = [failure for failure in failures if failure]
    play.tally.dead += len(dead)
    expect(
        [f is not None for f in failures] == [False] * len(SHAKY) + [True] * len(BROKEN),
        f"{len(SHAKY)} calls to recover and {len(BROKEN)} to die",
        f"{len(handles) - len(dead)} recovered and {len(dead)} died",
    )
    attempts = len(handles) * ATTEMPTS_MAX
    expect(sent == attempts, f"{attempts} provider requests", f"{sent} were sent")
    play.screen.fact(
        f"{len(SHAKY)} calls failed twice (500, 429) and succeeded at the third attempt"
    )
    play.screen.fact(f"{len(BROKEN)} calls are dead letters after {ATTEMPTS_MAX} attempts")
    groups = play.stage.client.operations.dead_groups(CallFilter(org_id=ORG))
    for group in groups:
        failure = Failure.from_json(group.sample_error)
        play.screen.note(
            f"{group.count} calls to {group.provider}/{group.model} died of {failure.code}:"
            f" {failure.message}"
        )
    expect(
        sum(group.count for group in groups) == len(BROKEN),
        f"{len(BROKEN)} dead letters on the list",
        f"it names {sum(group.count for group in groups)}",
    )


def _redrive(play: DemoProgress, dead: Sequence[Handle]) -> None:
    play.stage.simulator.script([])
    client = play.stage.client
    submitted, refused = client.redrive([handle.key for handle in dead])
    created = [answer for answer in submitted if answer.outcome is SubmitOutcome.CREATED]
    expect(len(created) == len(dead), f"{len(dead)} calls redriven", f"refused were {refused}")
    play.tally.redriven += len(created)
    handles = [client.handle(answer.key.task_id) for answer in created]
    play.wait(handles, "Redriving", SHORT_TIMEOUT_S)
    failed = [failure for handle in handles if (failure := _failure(handle))]
    expect(not failed, "every redriven call to succeed", f"{len(failed)} failed: {failed}")
    play.screen.fact(f"the provider was repaired, and {len(handles)} redriven calls succeeded")


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
