"""The third act: several processes submit one call at the same time."""

import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack

from callgate import LLMRequest
from devkit.demo.environment import DemoEnvironment, DemoFailed, spawn_tied, stop
from devkit.demo.progress import DemoProgress, expect
from devkit.demo.submitter import Outcome

PROCESSES = 5
SUBMISSIONS_PER_PROCESS = 10
READY_TIMEOUT_S = 60.0
TIMEOUT_S = 300.0


def crowd(play: DemoProgress, request: LLMRequest) -> None:
    """Submit a call that nobody made before many times at once: one provider request."""
    many = PROCESSES * SUBMISSIONS_PER_PROCESS
    with play.screen.act(f"3  One new document, submitted {many} times at once"):
        before = play.stage.sent()
        outcomes = _submit_at_once(play.stage, request)
        sent = play.stage.sent() - before
        collapsed = sum(o.collapsed for o in outcomes)
        answers = {text for o in outcomes for text in o.texts}
        play.tally.submitted += many
        play.tally.collapsed += collapsed
        expect(sent == 1, f"1 provider request for {many} submissions", f"{sent} were sent")
        expect(collapsed == many - 1, f"{many - 1} submissions to collapse", f"{collapsed} did")
        expect(len(answers) == 1, "one answer for all", f"there were {len(answers)}")
        play.screen.fact(
            f"{PROCESSES} processes, {many} submissions, 1 provider request;"
            f" all {many} have the same answer"
        )


def _submit_at_once(stage: DemoEnvironment, request: LLMRequest) -> list[Outcome]:
    """Start every process, wait until all are ready, let them go together, and collect what they say."""
    arguments = [
        *("-m", "devkit.demo.submitter"),
        *("--times", str(SUBMISSIONS_PER_PROCESS), "--timeout-s", str(TIMEOUT_S)),
    ]
    with ExitStack() as stack:
        crowd = []
        for _ in range(PROCESSES):
            process = spawn_tied(
                arguments, stage.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(stop, process)
            crowd.append(process)
        for process in crowd:
            _tell(process, request.model_dump_json())
        _wait_until_ready(crowd)
        for process in crowd:
            _tell(process, "")
        return [Outcome.model_validate_json(_rest(process)) for process in crowd]


def _tell(process: "subprocess.Popen[bytes]", line: str) -> None:
    assert process.stdin is not None, "the process is always started with a pipe"
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def _wait_until_ready(crowd: Sequence["subprocess.Popen[bytes]"]) -> None:
    give_up_at = time.monotonic() + READY_TIMEOUT_S
    for process in crowd:
        assert process.stdout is not None, "the process is always started with a pipe"
        # The process says so as soon as its imports are done, or ends, which is an empty line.
        readable, _, _ = select.select(
            [process.stdout], [], [], max(0, give_up_at - time.monotonic())
        )
        if not readable or process.stdout.readline() != b"ready\n":
            raise DemoFailed("expected each submitting process to start, but one did not")


def _rest(process: "subprocess.Popen[bytes]") -> bytes:
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DemoFailed(
            f"expected every submitter to hear of the result within {TIMEOUT_S:g} s, but one did not"
        ) from None
    if process.returncode != 0:
        raise DemoFailed(
            f"expected every submitter to get the result, but one ended with status {process.returncode}"
        )
    return output
