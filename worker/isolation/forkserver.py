"""
A fork server: one process imports everything once and forks children on demand.

    worker ── one socket per child ──► fork server ── fork ──► child: talks to the worker through that socket

They share nothing but code: the fork server has one thread and no connection. Each process is killed when the process
that started it ends, in any way. All ignore the signals that stop a worker.

Not `multiprocessing`'s forkserver: it lives as long as any of its children, so a child that hangs in C code outlives
a worker that was killed; and a SIGTERM to the worker's group ends it and its children during a drain (ADR 18).
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import structlog

from worker.tied_process import die_with, tied

log = structlog.get_logger(__name__)

READY = b"ready\n"
START_MAX_S = 60.0
"""How long a child may take to become ready; the first one also waits for the fork server's imports."""
END_MAX_S = 5.0
STDERR = 2
"""Not `sys.stderr`: Celery replaces it by an object without a descriptor."""
CHECKOUT = Path(__file__).parents[2]


class ChildFailed(Exception):
    """A child did not start, or ended before it answered its order."""


class ForkServer:
    """The worker's side of one fork server process."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def started(cls, argv: Sequence[str]) -> Self:
        """
        Start the process, tied to the life of this one, with the same stderr.

        Args:
            argv: The command of a program that calls `serve_forks`.

        Raises:
            OSError
        """
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        with ExitStack() as sockets:
            ours, theirs = map(sockets.enter_context, socket.socketpair())
            process = await asyncio.create_subprocess_exec(
                *tied(argv),
                stdin=theirs.fileno(),
                stdout=STDERR,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
            return cls(process, ours.dup())

    @property
    def is_open(self) -> bool:
        """Whether it can fork children."""
        return self._process.returncode is None and self._control.fileno() != -1

    async def child(self) -> Child:
        """
        Fork a child, and wait until it is ready for orders.

        Raises:
            OSError, TimeoutError, ChildFailed
        """
        with ExitStack() as sockets:
            ours, theirs = map(sockets.enter_context, socket.socketpair())
            socket.send_fds(self._control, [b"1"], [theirs.fileno()])
            channel = ours.dup()
        return await Child.connect(channel)

    def close(self) -> None:
        """Fork no more children; the process ends after the last of them."""
        self._control.close()

    async def end(self) -> None:
        """Return when the process has ended; its children must have been ended before."""
        self.close()
        try:
            async with asyncio.timeout(END_MAX_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Child:
    """The worker's side of one child, which executes one order at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int, pidfd: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._pidfd = pidfd
        """Identifies the process: after the fork server has reaped it, its pid may be reused."""
        self.pid = pid
        self.orders = 0
        """How many orders it has received."""

    @classmethod
    async def connect(cls, channel: socket.socket) -> Self:
        """
        Wait until the child at the other end of the channel is ready; close the channel if it does not start.

        Raises:
            OSError, TimeoutError, ChildFailed
        """
        reader, writer = await asyncio.open_unix_connection(sock=channel)
        child = None
        try:
            async with asyncio.timeout(START_MAX_S):
                if not (pid := await reader.readline()).strip().isdigit():
                    raise ChildFailed("it was not forked")
                child = cls(reader, writer, int(pid), os.pidfd_open(int(pid)))
                if await reader.readline() != READY:
                    raise ChildFailed("it did not start")
        except BaseException:
            if child is None:
                writer.close()
            else:
                await child.end()
            raise
        return child

    @property
    def has_ended(self) -> bool:
        """Whether it has closed its channel."""
        return self._reader.at_eof()

    async def ask(self, order: str) -> str:
        """
        Send an order, one line; return the answer, one line.

        Raises:
            OSError, ChildFailed: It ended before it answered.
        """
        self.orders += 1
        self._writer.write(f"{order}\n".encode())
        await self._writer.drain()
        if not (answer := (await self._reader.readline()).decode().strip()):
            raise ChildFailed("it ended")
        return answer

    def dismiss(self) -> None:
        """Send no more orders; it then ends by itself."""
        self._writer.close()
        self._close_pidfd()

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self._pidfd != -1:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it; return when it has ended."""
        self._writer.close()
        if self._pidfd == -1:
            return
        self.kill()
        gone, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(self._pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(self._pidfd)
            self._close_pidfd()

    def _close_pidfd(self) -> None:
        if self._pidfd != -1:
            os.close(self._pidfd)
            self._pidfd = -1


def serve_forks(run: Callable[[socket.socket], None]) -> None:
    """
    Fork a child for each socket that arrives through standard input; return when that and all children have ended.

    Args:
        run: What a child runs. It writes READY to its channel, then answers each line with a line, until the channel
            is closed. Unlike the fork server it may start threads and open connections.
    """
    # A signal to the whole process group must not stop a call that the worker's drain waits for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _reap)
    control = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # Pages that the garbage collector does not write stay shared with the children.
    gc.collect()
    gc.freeze()
    while fds := socket.recv_fds(control, 1, 1)[1]:
        with socket.socket(fileno=fds[0]) as channel:
            fork_server = os.getpid()
            if os.fork() == 0:
                _run_child(fork_server, control, channel, run)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _run_child(
    fork_server: int,
    control: socket.socket,
    channel: socket.socket,
    run: Callable[[socket.socket], None],
) -> None:
    """Run and exit, so that nothing of the fork server's stack runs in a child."""
    exit_code = 1
    try:
        die_with(fork_server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        channel.sendall(f"{os.getpid()}\n".encode())
        run(channel)
        exit_code = 0
    except BaseException:
        log.exception("forked_child.failed", pid=os.getpid())
    finally:
        sys.stderr.flush()
        os._exit(exit_code)


def _reap(*_: object) -> None:
    """Reap ended children and log their exit codes, which only their parent can read."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if exit_code := os.waitstatus_to_exitcode(ended[1]):
                log.warning("forked_child.died", pid=ended[0], exit_code=exit_code)
