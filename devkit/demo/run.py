"""
`callgate demo`: the whole life of some calls, on real servers and a real model, in minutes and with no API key.

Each act checks what it shows; the first promise that is not kept ends the demo with exit code 1 and a sentence.
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
from devkit.demo.environment import DemoFailed, check_packages, staged
from devkit.demo.progress import ORG, ORG_LIMIT_NANO_USD, Counters, DemoProgress
from devkit.servers.embedded import DevServersError
from devkit.simulator.simulator import SimulatorFailed
from worker.log_config import configure_logging

INTERRUPTED = 130


def run_demo(*, as_json: bool) -> int:
    """
    Play every act.

    Args:
        as_json: Print one JSON object to stdout and nothing else; people read along on stderr.

    Returns:
        The exit code: 0; 1 if something did not start or a promise was not kept; 130 after Ctrl-C.
    """
    configure_logging(as_json=False)
    logging.getLogger().setLevel(logging.ERROR)
    screen = DemoConsole(to_stderr=as_json)
    try:
        check_packages()
        with _interruptible(), tempfile.TemporaryDirectory(prefix="callgate-demo-") as folder:
            sums = _play(Path(folder), screen)
    except (DemoFailed, DevServersError, SimulatorFailed, CallgateError) as exc:
        screen.wrong(str(exc))
        return 1
    except KeyboardInterrupt:
        screen.wrong("Stopped. Nothing is left running.")
        return INTERRUPTED
    if as_json:
        sys.stdout.write(json.dumps(sums) + "\n")
    return 0


def _play(folder: Path, screen: DemoConsole) -> dict[str, int]:
    # They need the `demo` extra, which is known to be there only now.
    from devkit.demo.audit import close_the_books
    from devkit.demo.budget import overrun
    from devkit.demo.documents import extract, extract_again, unseen
    from devkit.demo.duplicates import crowd
    from devkit.demo.faults import fail_and_heal

    started = time.monotonic()
    screen.title("callgate demo", "LLM calls: none paid twice, no budget overrun, none unrecorded")
    with staged(folder, screen.note) as stage:
        play = DemoProgress(stage, screen)
        stage.client.operations.set_budget(ORG, ORG_SCOPE, Window.DAY, ORG_LIMIT_NANO_USD)
        requests = extract(play)
        extract_again(play, requests)
        crowd(play, unseen(play))
        overrun(play)
        fail_and_heal(play)
        sums = _sums(play.tally, close_the_books(play), stage.sent())
    screen.title("Done", f"every promise was kept, in {time.monotonic() - started:.0f} s")
    return sums


def _sums(tally: Counters, report: AuditReport, sent: int) -> dict[str, int]:
    """What `--json` prints. `succeeded` is the ledger's word, `provider_requests` the wire's."""
    return {
        "submitted": tally.submitted,
        "collapsed": tally.collapsed,
        "provider_requests": sent,
        "logged": sum(report.snapshot.attempts_by_status.values()),
        "succeeded": report.snapshot.calls_by_state.get("succeeded", 0),
        "refused": tally.refused,
        "dead": tally.dead,
        "redriven": tally.redriven,
        "spent_nano_usd": report.snapshot.spent_nano_usd,
        "drift_nano_usd": report.drift_nano_usd,
    }


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt, and let the tidying up after it be undisturbed."""

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
