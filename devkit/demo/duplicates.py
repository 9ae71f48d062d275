"""The third scenario: several processes submit one call at the same time."""

import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack

from callgate import LLMRequest
from devkit.demo.environment import (
    WORKER_STOP_TIMEOUT_S,
    DemoEnvironment,
    DemoFailed,
    spawn_tied,
)
from devkit.demo.scenario import DemoRun, expect
from devkit.demo.submitter import SubmitterReport
from devkit.processes import stop

PROCESSES = 5
SUBMISSIONS_PER_PROCESS = 10
READY_TIMEOUT_S = 60.0
TIMEOUT_S = 300.0


def submit_concurrently(run: DemoRun, request: LLMRequest) -> None:
    """Submit a new call many times at once, and expect one provider request."""
    submissions = PROCESSES * SUBMISSIONS_PER_PROCESS
    with run.console.scenario(f"3  One new document, submitted {submissions} times at once"):
        before = run.environment.requests_sent()
        reports = _reports_of_processes(run.environment, request)
        sent = run.environment.requests_sent() - before
        collapsed = sum(report.collapsed for report in reports)
        answers = {text for report in reports for text in report.texts}
        run.counters.submitted += submissions
        run.counters.collapsed += collapsed
        expect(sent == 1, f"1 provider request for {submissions} submissions", f"{sent} were sent")
        expect(
            collapsed == submissions - 1,
            f"{submissions - 1} submissions to collapse",
            f"{collapsed} did",
        )
        expect(
            len(answers) == 1,
            "the same answer for all",
            f"there were {len(answers)} different ones",
        )
        run.console.fact(
            f"{PROCESSES} processes, {submissions} submissions, 1 provider request;"
            f" all {submissions} have the same answer"
        )


def _reports_of_processes(
    environment: DemoEnvironment, request: LLMRequest
) -> list[SubmitterReport]:
    """Start the processes, release them together when all are ready, and collect their reports."""
    arguments = [
        *("-m", "devkit.demo.submitter"),
        *("--times", str(SUBMISSIONS_PER_PROCESS), "--timeout-s", str(TIMEOUT_S)),
    ]
    with ExitStack() as stack:
        processes = []
        for _ in range(PROCESSES):
            process = spawn_tied(
                arguments, environment.variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(stop, process, WORKER_STOP_TIMEOUT_S)
            processes.append(process)
        for process in processes:
            _write_line(process, request.model_dump_json())
        _wait_until_ready(processes)
        for process in processes:
            _write_line(process, "")
        return [SubmitterReport.model_validate_json(_report_of(process)) for process in processes]


def _write_line(process: "subprocess.Popen[bytes]", line: str) -> None:
    assert process.stdin is not None, "the process is always started with a pipe"
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def _wait_until_ready(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    give_up_at = time.monotonic() + READY_TIMEOUT_S
    for process in processes:
        assert process.stdout is not None, "the process is always started with a pipe"
        # A process prints "ready" after its imports. `readline` returns an empty line if it ended.
        readable, _, _ = select.select(
            [process.stdout], [], [], max(0, give_up_at - time.monotonic())
        )
        if not readable or process.stdout.readline() != b"ready\n":
            raise DemoFailed("expected every submitting process to start, but one did not")


def _report_of(process: "subprocess.Popen[bytes]") -> bytes:
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DemoFailed(
            f"expected every submitting process to get the result within {TIMEOUT_S:g} s, but one did not"
        ) from None
    if process.returncode != 0:
        raise DemoFailed(
            f"expected every submitting process to get the result, but one ended with status {process.returncode}"
        )
    return output
