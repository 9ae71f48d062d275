"""
Check answers against schemas in a child process with limits of time and memory: `worker.isolation.schema_child`.

    settle batches ── check ──► one thread, organisations in turn ── schema and text ──► child
                   ◄─────────── what is wrong, or that it was too costly ◄──────────────┘

When a check ends the child, its schema counts as too costly and is not tried again for some time. When something else
may have killed the child, or no child can be started, the answer waits: it is in the ledger, and recovery returns it.
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
from callgate.domain.answers import Answer, SchemaResult
from callgate.domain.errors import CheckerUnavailable, OutputUnchecked, SchemaTooCostly
from worker.fair_thread import FairThread, Steps
from worker.isolation.schema_child import CPU_MAX_S, READY, order_of
from worker.tied_process import tied

log = structlog.get_logger(__name__)

CHILD_ARGV = (sys.executable, "-m", "worker.isolation.schema_child")
CHECKOUT = Path(__file__).parents[2]
START_MAX_S = 20.0
START_AGAIN_S = 5.0
"""The pause after a child that did not start."""
ANSWER_MAX_S = 20 * CPU_MAX_S
"""A child that needs longer gets no CPU or is stopped: the limit of its own CPU time is much shorter."""
UNAVAILABLE_MAX_S = 600.0
"""How long answers wait for a child that does not start; later ones fail as unchecked."""
COSTLY_S = 600.0
"""How long a schema that was too costly is not tried again."""
KILLS_MAX = 3
"""After so many kills by SIGKILL during one schema it counts as too costly."""
END_MAX_S = 5.0
REMEMBERED_MAX = 1_024
STDERR = 2

TOO_COSTLY = "checking the answer took more processor time or memory than one call may have"


class SchemaChecker:
    """An `OutputValidatorPort` with one child, started when it is first needed. Thread-safe."""

    def __init__(self, argv: Sequence[str] = CHILD_ARGV) -> None:
        self._argv = argv
        self._turns = FairThread("schemas")
        self._child: _Child | None = None
        self._unavailable_since: float | None = None
        self._start_again_at = 0.0
        self._kills: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        """By organisation and schema: how many children ended during its check, and when last."""

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[SchemaResult]:
        """See `OutputValidatorPort`."""
        results: list[SchemaResult] = [CheckerUnavailable("no turn within its time")] * len(answers)
        by_org: dict[str, list[int]] = {}
        for place, answer in enumerate(answers):
            by_org.setdefault(answer.org_id, []).append(place)
        turns = [
            self._turns.submit(org_id, self._steps(answers, places, results))
            for org_id, places in by_org.items()
        ]
        wait(turns, within_s)
        for turn in turns:
            turn.cancel()
        return list(results)

    def _steps(
        self, answers: Sequence[Answer], places: Sequence[int], results: list[SchemaResult]
    ) -> Steps[None]:
        """Check the answers of one organisation, one text per step, and fill in the results."""
        for place in places:
            answer = answers[place]
            result: SchemaResult = None
            for text in answer.texts:
                try:
                    result = self._ask(answer, text)
                except (OutputUnchecked, CheckerUnavailable) as exc:
                    result = exc
                except Exception as exc:
                    # It would be the same each time. Its text may quote the answer, so only the type is logged.
                    log.error("answer_check.failed", reason=type(exc).__name__)
                    result = OutputUnchecked(f"checking the answer failed: {type(exc).__name__}")
                yield
                if result is not None:
                    break
            results[place] = result

    def close(self) -> None:
        """Stop checking; answers that still wait are found unavailable."""
        self._turns.close()
        if (child := self._child) is not None:
            child.kill()
            self._turns.join(END_MAX_S)
            child.end()

    @property
    def child_pid(self) -> int | None:
        """The pid of the child, if there is one."""
        return self._child.pid if self._child else None

    def _ask(self, answer: Answer, text: str) -> str | None:
        """Have one text checked, in the thread of the turns; start a child if there is none."""
        key = _key(answer)
        self._refuse_costly(key)
        child = self._child = self._ready()
        try:
            order = order_of(answer.schema, text, answer.complaints_max)
            checked = json.loads(child.ask(order, ANSWER_MAX_S))
        except _Ended as exc:
            self._child = None
            self._count_kill(key, exc)
            raise CheckerUnavailable(str(exc)) from exc
        if checked["is_last"]:
            child.end()
            self._child = None
        if checked["is_costly"]:
            self._remember(key, KILLS_MAX)
            raise SchemaTooCostly(TOO_COSTLY)
        self._kills.pop(key, None)
        why: str | None = checked["why"]
        return self._more(child) or why if checked["has_more"] else why

    def _more(self, child: _Child) -> str | None:
        """All complaints about the answer that was just checked; None if the search ended the child."""
        try:
            found = json.loads(child.more(ANSWER_MAX_S))
        except _Ended as exc:
            self._child = None
            log.warning("answer_checker.ended", reason=str(exc), is_costly=False)
            return None
        if found["is_last"]:
            child.end()
            self._child = None
        why: str | None = found["why"]
        return why

    def _ready(self) -> _Child:
        if self._child is not None:
            if self._child.is_alive:
                return self._child
            # It was killed between two answers: its pipes are still open here.
            self._child.end()
            self._child = None
        now = monotonic()
        if now >= self._start_again_at:
            try:
                child = _Child(self._argv)
                child.until_ready()
            except (OSError, _Ended) as exc:
                log.error("answer_checker.start_failed", reason=str(exc))
                self._start_again_at = now + START_AGAIN_S
            else:
                self._unavailable_since = None
                return child
        self._unavailable_since = (
            now if self._unavailable_since is None else self._unavailable_since
        )
        if now - self._unavailable_since > UNAVAILABLE_MAX_S:
            raise OutputUnchecked("no process could be started that checks the answer")
        raise CheckerUnavailable("no process could be started that checks answers")

    def _count_kill(self, key: bytes, end: _Ended) -> None:
        count, _ = self._kills.get(key, (0, 0.0))
        count = count + 1 if end.may_be_killed_from_outside else KILLS_MAX
        self._remember(key, count)
        log.warning("answer_checker.ended", reason=str(end), is_costly=count >= KILLS_MAX)
        self._refuse_costly(key)

    def _remember(self, key: bytes, count: int) -> None:
        self._kills[key] = (count, monotonic())
        self._kills.move_to_end(key)
        while len(self._kills) > REMEMBERED_MAX:
            self._kills.popitem(last=False)

    def _refuse_costly(self, key: bytes) -> None:
        count, at = self._kills.get(key, (0, 0.0))
        if count >= KILLS_MAX and monotonic() - at < COSTLY_S:
            raise SchemaTooCostly(TOO_COSTLY)


def _key(answer: Answer) -> bytes:
    """Of the organisation too: its answers must not block another's with the same schema."""
    both = f"{len(answer.org_id)}:{answer.org_id}{answer.schema}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(both).digest()


class _Ended(Exception):
    """The child has ended, or was killed for not answering."""

    def __init__(self, why: str, *, may_be_killed_from_outside: bool) -> None:
        super().__init__(why)
        self.may_be_killed_from_outside = may_be_killed_from_outside


class _Child:
    """One child and its two pipes. It is killed when the thread that started it ends."""

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
        self._rest = b""
        """What was read after the last line."""
        self._in, self._out = _pipe(self._process.stdin), _pipe(self._process.stdout)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def until_ready(self) -> None:
        """
        Wait until it accepts orders.

        Raises:
            _Ended
        """
        if (line := self._line(time.monotonic() + START_MAX_S)) != READY:
            raise self._end(f"it wrote {line[:20]!r}")

    def ask(self, order: bytes, within_s: float) -> bytes:
        """
        Send an order and return the answer.

        Raises:
            _Ended: By its own limits, by `within_s`, or by a signal from outside.
        """
        ends_at = time.monotonic() + within_s
        left = memoryview(order)
        try:
            while left:
                self._wait(self._in, select.POLLOUT, ends_at)
                left = left[os.write(self._in, left) :]
        except OSError as exc:
            raise self._end("it accepted no order") from exc
        return self._line(ends_at)

    def more(self, within_s: float) -> bytes:
        """
        Return the next line of the last answer.

        Raises:
            _Ended: As `ask`.
        """
        return self._line(time.monotonic() + within_s)

    def kill(self) -> None:
        """Kill it; return when it has ended."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill it and close its pipes."""
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _line(self, ends_at: float) -> bytes:
        while b"\n" not in self._rest:
            self._wait(self._out, select.POLLIN, ends_at)
            if not (more := os.read(self._out, 65_536)):
                raise self._end("it ended")
            self._rest += more
        line, end, self._rest = self._rest.partition(b"\n")
        return line + end

    def _wait(self, fd: int, event: int, ends_at: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(max(0.0, ends_at - time.monotonic()) * 1_000):
            raise self._end("it did not answer in time")

    def _end(self, why: str) -> _Ended:
        """Make sure that it has ended, and return the error with its exit code."""
        try:
            code = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        self.end()
        return _Ended(f"{why} ({code})", may_be_killed_from_outside=code == -signal.SIGKILL)


def _pipe(stream: Any) -> int:
    fd: int = stream.fileno()
    os.set_blocking(fd, False)
    return fd
