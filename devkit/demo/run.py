"""
`callgate demo`: the life of some calls from submission to audit, on real servers and a real model, without an API key.

Each scenario checks what it shows. The first promise that is not kept ends the demo with exit code 1 and a message.
"""

import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.errors import CallgateError
from callgate.services.audit import AuditReport
from devkit.demo.console import DemoConsole
from devkit.demo.environment import DemoFailed, check_packages, open_environment
from devkit.demo.scenario import ORG, ORG_LIMIT_NANO_USD, Counters, DemoRun
from devkit.servers.embedded import DevServersError
from devkit.simulator.simulator import SimulatorFailed
from worker.log_config import configure_logging

INTERRUPTED = 130


def run_demo(*, as_json: bool) -> int:
    """
    Run every scenario.

    Args:
        as_json: Print one JSON object to stdout; everything else goes to stderr.

    Returns:
        The exit code: 0, 1 if something did not start or a promise was not kept, or 130 after Ctrl-C.
    """
    configure_logging(as_json=False)
    logging.getLogger().setLevel(logging.ERROR)
    console = DemoConsole(to_stderr=as_json)
    try:
        check_packages()
        with _interruptible(), tempfile.TemporaryDirectory(prefix="callgate-demo-") as folder:
            totals = _run_scenarios(Path(folder), console)
    except (DemoFailed, DevServersError, SimulatorFailed, CallgateError) as exc:
        console.failure(str(exc))
        return 1
    except KeyboardInterrupt:
        console.failure("Stopped. Nothing is left running.")
        return INTERRUPTED
    if as_json:
        sys.stdout.write(json.dumps(totals) + "\n")
    return 0


def _run_scenarios(folder: Path, console: DemoConsole) -> dict[str, int]:
    # These modules need the `demo` extra, which `check_packages` has just found.
    from devkit.demo.audit import audit_ledger
    from devkit.demo.budget import exceed_budget
    from devkit.demo.documents import extract, extract_again, held_out_request
    from devkit.demo.duplicates import submit_concurrently
    from devkit.demo.faults import fail_and_redrive
    from devkit.demo.protocols import extract_in_each_protocol

    started = time.monotonic()
    console.title("callgate demo", "LLM calls: none paid twice, no budget overrun, none unrecorded")
    with open_environment(folder, console.note) as environment:
        run = DemoRun(environment, console)
        environment.client.operations.set_budget(ORG, ORG_SCOPE, Window.DAY, ORG_LIMIT_NANO_USD)
        requests = extract(run)
        extract_again(run, requests)
        submit_concurrently(run, held_out_request(run))
        exceed_budget(run)
        fail_and_redrive(run)
        extract_in_each_protocol(run)
        totals = _totals(run.counters, audit_ledger(run), environment.requests_sent())
    console.title("Done", f"all promises were kept, in {time.monotonic() - started:.0f} s")
    return totals


def _totals(counters: Counters, report: AuditReport, sent: int) -> dict[str, int]:
    """Return what `--json` prints: `provider_requests` was counted on the wire, `logged` is from the ledger."""
    return {
        "submitted": counters.submitted,
        "collapsed": counters.collapsed,
        "provider_requests": sent,
        "logged": sum(report.snapshot.attempts_by_status.values()),
        "succeeded": report.snapshot.calls_by_state.get("succeeded", 0),
        "refused": counters.refused,
        "dead": counters.dead,
        "redriven": counters.redriven,
        "spent_nano_usd": report.snapshot.spent_nano_usd,
        "drift_nano_usd": report.drift_nano_usd,
    }


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt, and ignore further ones during the cleanup."""

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
