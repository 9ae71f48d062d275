"""
Checks answers in a child process, which a limit of time or memory may end: see `worker.isolation.schema_child`.

    settle batches ── check ──► one thread, organisations in turn ── schema and text ──► child
                   ◄─────────── where it breaks, or that it was too costly ◄────────────┘

What ends the child while it checks is the fault of what it checked, and its schema is not tried again for a while.
Only if somebody else may have killed it, or if there is no child to be had, the answer waits: it is in the ledger, and
the due query brings it back.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import structlog

from callgate.adapters.system_clock import monotonic
from callgate.domain.answers import Answer, Finding
from callgate.domain.errors import CheckerUnavailable, OutputUnchecked, SchemaTooCostly
from worker.isolation.schema_child import CPU_S_MAX, READY, order_of
from worker.tied_process import tied
from worker.turns import Steps, Turns

log = structlog.get_logger(__name__)

CHILD_ARGV = (sys.executable, "-m", "worker.isolation.schema_child")
CHECKOUT = Path(__file__).parents[2]
START_MAX_S = 20.0
START_AGAIN_S = 5.0
"""The pause after a child that did not start."""
ANSWER_MAX_S = 20 * CPU_S_MAX
"""A child that takes so long is starved or stopped: it would have been ended for its own processor time before."""
AWAY_MAX_S = 600.0
"""For so long answers wait for a child; those that come after that are posted unchecked, as failures."""
COSTLY_S = 600.0
"""How long a schema that was too costly is not tried again."""
DOUBTS_MAX = 3
"""So many children may be killed from outside over one schema before it counts as too costly."""
END_MAX_S = 5.0
REMEMBERED_MAX = 1_024
STDERR = 2

TOO_COSTLY = "checking the answer took more processor time or memory than one call may have"


class SchemaChecker:
    """An `OutputValidatorPort` with one child, started when it is first needed. Thread-safe."""

    def __init__(self, argv: Sequence[str] = CHILD_ARGV) -> None:
        self._argv = argv
        self._turns = Turns("schemas")
        self._child: _Child | None = None
        self._away_since: float | None = None
        self._start_again_at = 0.0
        self._doubts: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        """By organisation and schema: how often it was what a child died of, and when last."""

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[Finding]:
        """See `OutputValidatorPort`."""
        findings: list[Finding] = [CheckerUnavailable("no turn within its time")] * len(answers)
        by_org: dict[str, list[int]] = {}
        for place, answer in enumerate(answers):
            by_org.setdefault(answer.org_id, []).append(place)
        turns = [
            self._turns.submit(org_id, self._steps(answers, places, findings))
            for org_id, places in by_org.items()
        ]
        wait(turns, within_s)
        for turn in turns:
            turn.cancel()
        return list(findings)

    def _steps(
        self, answers: Sequence[Answer], places: Sequence[int], findings: list[Finding]
    ) -> Steps[None]:
        """Check an organisation's answers, a text at a time, and fill in what was found."""
        for place in places:
            answer = answers[place]
            finding: Finding = None
            for text in answer.texts:
                try:
                    finding = self._ask(answer, text)
                except (OutputUnchecked, CheckerUnavailable) as exc:
                    finding = exc
                except Exception as exc:
                    # Whatever it is, it is so each time; its words may quote the answer.
                    log.error("answer_check.failed", why=type(exc).__name__)
                    finding = OutputUnchecked(f"checking the answer failed: {type(exc).__name__}")
                yield
                if finding is not None:
                    break
            findings[place] = finding

    def close(self) -> None:
        """Check no more; who still waits for a check hears that there is nobody for it."""
        self._turns.close()
        if (child := self._child) is not None:
            child.kill()
            self._turns.join(END_MAX_S)
            child.end()

    @property
    def child_pid(self) -> int | None:
        """The process that checks, if there is one."""
        return self._child.pid if self._child else None

    def _ask(self, answer: Answer, text: str) -> str | None:
        """In the one thread: have it checked, by a child that is started if there is none."""
        key = _key(answer)
        self._refuse_costly(key)
        child = self._child = self._ready()
        try:
            said = json.loads(child.ask(order_of(answer.schema, text), ANSWER_MAX_S))
        except _Ended as exc:
            self._child = None
            self._doubt(key, exc)
            raise CheckerUnavailable(str(exc)) from exc
        if said["is_last"]:
            child.end()
            self._child = None
        if said["is_costly"]:
            self._remember(key, DOUBTS_MAX)
            raise SchemaTooCostly(TOO_COSTLY)
        self._doubts.pop(key, None)
        why: str | None = said["why"]
        return why

    def _ready(self) -> _Child:
        if self._child is not None and self._child.is_alive:
            return self._child
        now = monotonic()
        if now >= self._start_again_at:
            try:
                child = _Child(self._argv)
                child.until_ready()
            except (OSError, _Ended) as exc:
                log.error("answer_checker.start_failed", reason=str(exc))
                self._start_again_at = now + START_AGAIN_S
            else:
                self._away_since = None
                return child
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since > AWAY_MAX_S:
            raise OutputUnchecked("no process could be started that checks the answer")
        raise CheckerUnavailable("no process could be started that checks answers")

    def _doubt(self, key: bytes, end: _Ended) -> None:
        count, _ = self._doubts.get(key, (0, 0.0))
        count = count + 1 if end.may_be_others_doing else DOUBTS_MAX
        self._remember(key, count)
        log.warning("answer_checker.ended", reason=str(end), is_costly=count >= DOUBTS_MAX)
        self._refuse_costly(key)

    def _remember(self, key: bytes, count: int) -> None:
        self._doubts[key] = (count, monotonic())
        self._doubts.move_to_end(key)
        while len(self._doubts) > REMEMBERED_MAX:
            self._doubts.popitem(last=False)

    def _refuse_costly(self, key: bytes) -> None:
        count, at = self._doubts.get(key, (0, 0.0))
        if count >= DOUBTS_MAX and monotonic() - at < COSTLY_S:
            raise SchemaTooCostly(TOO_COSTLY)


def _key(answer: Answer) -> bytes:
    """One organisation's answers say nothing about another's, though they have the same schema."""
    both = f"{len(answer.org_id)}:{answer.org_id}{answer.schema}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(both).digest()


class _Ended(Exception):
    """The child is gone."""

    def __init__(self, why: str, *, may_be_others_doing: bool) -> None:
        super().__init__(why)
        self.may_be_others_doing = may_be_others_doing


class _Child:
    """One child and its two pipes; it dies with the thread that starts it, at the latest."""

    def __init__(self, argv: Sequence[str]) -> None:
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(  # noqa: S603 - the argument list is ours
            tied(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=STDERR,
            env={"PYTHONPATH": path},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        self._in, self._out = _pipe(self._process.stdin), _pipe(self._process.stdout)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def until_ready(self) -> None:
        """
        Wait until it takes orders.

        Raises:
            _Ended
        """
        if (said := self._line(time.monotonic() + START_MAX_S)) != READY:
            raise self._end(f"it said {said[:20]!r}")

    def ask(self, order: bytes, within_s: float) -> bytes:
        """
        Give it an order and return its answer.

        Raises:
            _Ended: By its own limits, by the time given here, or by somebody else.
        """
        ends_at = time.monotonic() + within_s
        left = memoryview(order)
        try:
            while left:
                self._wait(self._in, select.POLLOUT, ends_at)
                left = left[os.write(self._in, left) :]
        except OSError as exc:
            raise self._end("it took no order") from exc
        return self._line(ends_at)

    def kill(self) -> None:
        """Kill it, whatever it does; return when it is gone."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Have it gone, and its pipes closed."""
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _line(self, ends_at: float) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            self._wait(self._out, select.POLLIN, ends_at)
            if not (more := os.read(self._out, 65_536)):
                raise self._end("it ended")
            line += more
        return line

    def _wait(self, fd: int, event: int, ends_at: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(max(0.0, ends_at - time.monotonic()) * 1_000):
            raise self._end("it did not answer in time")

    def _end(self, why: str) -> _Ended:
        """See that it is gone, and say of what."""
        try:
            code = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        self.end()
        return _Ended(f"{why} ({code})", may_be_others_doing=code == -signal.SIGKILL)


def _pipe(stream: Any) -> int:
    fd: int = stream.fileno()
    os.set_blocking(fd, False)
    return fd
