"""
One real server as a child process: start it, wait until it is ready, stop it, and kill or suspend it in tests.

The kernel kills the child when its owner, the process that started it, ends, also when the owner is killed. Ctrl-C in
the terminal does not reach the child. Its output goes to a log file, one file per run.

    DevServersError            a server or its folder cannot be used
    ├── FolderInUse            another process runs servers in this data folder
    └── ServerFailed           a program ended or was not ready in time; `log_tail` is the end of its log
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from worker.tied_process import tied

with suppress(ModuleNotFoundError):  # `DevServers` names the missing extra
    import psutil

LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 16_384
POLL_S = 0.02
SIGNAL_TIMEOUT_S = 10.0

# Not the environment of the owner: variables like PGDATA and LD_PRELOAD must not reach a server. UTF-8, because Python
# 3.11 and 3.12 read the `.pth` file with the path of the checkout in the encoding of the locale.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class DevServersError(RuntimeError):
    """The servers cannot run here. The message says what to do."""


class FolderInUse(DevServersError):
    """Another process runs servers in this data folder."""


class ServerFailed(DevServersError):
    """A program ended or was not ready in time."""

    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        super().__init__(name, reason, log_tail)
        self.name, self.reason, self.log_tail = name, reason, log_tail

    def __str__(self) -> str:
        return f"{self.name} {self.reason}; the end of its log:\n{self.log_tail or '(empty)'}"


@dataclass(frozen=True)
class Account:
    """The ordinary account of a program whose owner is root."""

    uid: int
    gid: int
    passage: bool
    """True if the account must enter folders that are closed to it."""


@dataclass(frozen=True)
class Program:
    """What to run, where, and how to recognise that it is ready."""

    name: str
    argv: Sequence[str]
    folder: Path
    """The working directory."""
    log: Path
    """A new file at each start. The log of the previous run is kept with the suffix `.previous`."""
    ready_text: str
    """Appears in the log when the program is ready."""
    process_tag: str
    """Appears on the command line of every process of this server, and of no other server."""
    account: Account | None = None
    """None: the account of the owner."""
    stop_signal: signal.Signals = signal.SIGTERM
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 30.0


class Server:
    """
    One server process with its children. It can be started again after `stop` and `kill`, on the same port.

    Not thread-safe.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._child: subprocess.Popen[bytes] | None = None
        # The kernel kills a child when the thread that forked it ends. So every start is done by one thread, which
        # lives as long as this object.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix=f"callgate-{program.name}")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The id of the main process of the current or last run."""
        assert self._child is not None, "the server was never started"
        return self._child.pid

    def is_alive(self) -> bool:
        """Tell whether the main process exists; a suspended process does."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """
        Start the server, and return when it is ready. Do nothing if it is alive.

        Processes that an earlier run left behind are killed first.

        Raises:
            ServerFailed: it ended, or was not ready within `start_timeout_s`.
        """
        if self.is_alive():
            return
        self.kill()
        if self.program.log.exists():
            self.program.log.chmod(0o600)
            self.program.log.replace(self.program.log.with_suffix(".previous"))
        self._child = self._starter.submit(spawn, self.program).result()
        try:
            self._wait_until_ready(self._child)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut the server down; kill it after `stop_timeout_s`. A suspended server is resumed first."""
        if self._child is not None and self.is_alive():
            self.resume()
            self._child.send_signal(self.program.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(self.program.stop_timeout_s)
        self.kill()

    def kill(self) -> None:
        """Kill every process of the server with SIGKILL, and return when they are gone."""
        self._signal_until(signal.SIGKILL, lambda _: False)
        if self._child is not None:
            self._child.kill()
            self._child.wait(SIGNAL_TIMEOUT_S)

    def suspend(self) -> None:
        """Stop every process of the server with SIGSTOP: sockets stay open, but nothing answers."""
        self._signal_until(signal.SIGSTOP, lambda status: status == psutil.STATUS_STOPPED)

    def resume(self) -> None:
        """Continue a suspended server."""
        self._signal_until(signal.SIGCONT, lambda status: status != psutil.STATUS_STOPPED)

    def close(self) -> None:
        """Stop the server, and end the thread of this object. The server cannot be started again."""
        self.stop()
        self._starter.shutdown()

    def _wait_until_ready(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.program.start_timeout_s
        while self.program.ready_text not in end_of(self.program.log):
            if child.poll() is not None:
                raise self._failure(f"ended with status {child.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {self.program.start_timeout_s:g} s")
            time.sleep(POLL_S)

    def _failure(self, reason: str) -> ServerFailed:
        return ServerFailed(self.program.name, reason, log_tail(self.program.log))

    def _signal_until(self, number: signal.Signals, is_done: Callable[[str], bool]) -> None:
        """Signal every process of the server, also those forked meanwhile, until all that exist are done."""
        deadline = time.monotonic() + SIGNAL_TIMEOUT_S
        while processes := [
            process
            for process in processes_tagged(self.program.process_tag)
            if not is_done(process.info["status"])
        ]:
            if time.monotonic() > deadline:
                pids = [process.pid for process in processes]
                raise self._failure(f"processes {pids} did not react to {number.name}")
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            time.sleep(POLL_S / 10)


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own. The kernel kills it when the calling thread ends."""
    account = program.account or Account(uid=-1, gid=-1, passage=False)
    command = tied(program.argv, uid=account.uid, gid=account.gid, passage=account.passage)
    with open(program.log, "ab", opener=private) as log:
        return subprocess.Popen(  # noqa: S603 - the argument list is ours
            command,
            cwd=program.folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def private(path: str, flags: int) -> int:
    """An opener for `open` that closes the file to other accounts, whatever the umask and its previous mode."""
    file = os.open(path, flags, 0o600)
    os.fchmod(file, 0o600)
    return file


def run(program: Program) -> None:
    """
    Run a program to its end.

    Raises:
        ServerFailed: its exit status was not 0, or it did not end within `start_timeout_s`.
    """
    child = spawn(program)
    try:
        status = child.wait(program.start_timeout_s)
    except subprocess.TimeoutExpired:
        reason = f"did not end within {program.start_timeout_s:g} s"
        raise ServerFailed(program.name, reason, log_tail(program.log)) from None
    finally:
        child.kill()
        child.wait()
    if status != 0:
        raise ServerFailed(program.name, f"ended with status {status}", log_tail(program.log))


def log_tail(log: Path) -> str:
    """Return the last lines of a log, or an empty text if there is none."""
    return "\n".join(end_of(log).splitlines()[-LOG_TAIL_LINES:])


def end_of(log: Path) -> str:
    """Return the last `LOG_TAIL_BYTES` of a log, or an empty text if there is none."""
    with suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""


def processes_tagged(process_tag: str) -> list[psutil.Process]:
    """Return the processes with a tag on their command line, also those that outlived their owner, but no zombies."""
    processes = psutil.process_iter(["cmdline", "status"])
    return [p for p in processes if process_tag in " ".join(p.info["cmdline"] or ())]
