"""
Processes at short notice: one that has imported everything forks the others.

    worker ── a socket for each child ──► nursery ── fork ──► child: speaks with the worker through that socket

Nothing is shared but code: the nursery has one thread and no connection. Each process is killed when the one that made
it ends, however it ends, and all are deaf to the signals that stop a worker.
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
"""How long a child may take until it can run calls; the first one waits for the nursery's imports as well."""
END_MAX_S = 5.0
STDERR = 2
"""Not `sys.stderr`, which Celery replaces by one without a descriptor."""
CHECKOUT = Path(__file__).parents[2]


class ChildFailed(Exception):
    """A child did not start, or ended before it said what its order came to."""


class ForkServer:
    """The worker's end of one nursery process."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def started(cls, argv: Sequence[str]) -> Self:
        """
        Start the process, tied to this one's life; its log lines go where this one's go.

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
        """Whether children can be had."""
        return self._process.returncode is None and self._control.fileno() != -1

    async def child(self) -> Child:
        """
        Get a child that is ready for orders.

        Raises:
            OSError, TimeoutError, ChildFailed
        """
        with ExitStack() as sockets:
            ours, theirs = map(sockets.enter_context, socket.socketpair())
            socket.send_fds(self._control, [b"1"], [theirs.fileno()])
            passage = ours.dup()
        return await Child.met(passage)

    def close(self) -> None:
        """Have no more children: it ends when the last one has."""
        self._control.close()

    async def end(self) -> None:
        """Return when it is gone; its children must have been ended."""
        self.close()
        try:
            async with asyncio.timeout(END_MAX_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Child:
    """The worker's end of one child, which follows one order at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int, pidfd: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._pidfd = pidfd
        """Names the process for certain: the nursery buries it, and then its number may be another's."""
        self.pid = pid
        self.orders = 0
        """Orders it was given so far."""

    @classmethod
    async def met(cls, passage: socket.socket) -> Self:
        """
        Wait until a child is ready at the other end of a socket, which is closed if none is.

        Raises:
            OSError, TimeoutError, ChildFailed
        """
        reader, writer = await asyncio.open_unix_connection(sock=passage)
        child = None
        try:
            async with asyncio.timeout(START_MAX_S):
                if not (pid := await reader.readline()).strip().isdigit():
                    raise ChildFailed("it was not born")
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
        """Whether it is known to have ended."""
        return self._reader.at_eof()

    async def ask(self, order: str) -> str:
        """
        Give it an order, one line; return its answer, one line.

        Raises:
            OSError, ChildFailed: It ended meanwhile, or before.
        """
        self.orders += 1
        self._writer.write(f"{order}\n".encode())
        await self._writer.drain()
        if not (answer := (await self._reader.readline()).decode().strip()):
            raise ChildFailed("it ended")
        return answer

    def dismiss(self) -> None:
        """Tell it that no more orders come; it then ends by itself."""
        self._writer.close()
        self._forget()

    def kill(self) -> None:
        """Kill it, if it is still there."""
        if self._pidfd != -1:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it; return when it is gone."""
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
            self._forget()

    def _forget(self) -> None:
        if self._pidfd != -1:
            os.close(self._pidfd)
            self._pidfd = -1


def serve_forks(live: Callable[[socket.socket], None]) -> None:
    """
    Be a nursery: fork a child for each socket that comes through standard input; return when that and they have ended.

    Args:
        live: The life of a child. It says READY through its socket, then answers each line with a line until no more
            come; it may start threads and open connections, which the nursery must not have.
    """
    # Whoever stops a whole group of processes must not stop a call that its worker's drain waits for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _reap)
    control = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # What the collector does not touch stays shared with the children.
    gc.collect()
    gc.freeze()
    while fds := socket.recv_fds(control, 1, 1)[1]:
        with socket.socket(fileno=fds[0]) as passage:
            fork_server = os.getpid()
            if os.fork() == 0:
                _run_child(fork_server, control, passage, live)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _run_child(
    fork_server: int,
    control: socket.socket,
    passage: socket.socket,
    live: Callable[[socket.socket], None],
) -> None:
    """Live and exit; nothing of the nursery's stack may go on in a child."""
    exit_code = 1
    try:
        die_with(fork_server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        passage.sendall(f"{os.getpid()}\n".encode())
        live(passage)
        exit_code = 0
    except BaseException:
        log.exception("forked_child.failed", pid=os.getpid())
    finally:
        sys.stderr.flush()
        os._exit(exit_code)


def _reap(*_: object) -> None:
    """Reap the dead, and say what they died of: only their parent can know."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if exit_code := os.waitstatus_to_exitcode(ended[1]):
                log.warning("forked_child.died", pid=ended[0], exit_code=exit_code)
