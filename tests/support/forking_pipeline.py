"""
A program that uses its client in several threads, and then forks. Its first argument names the way of forking.

Every child and the parent read results of their own organisation. Errors are printed; the exit code is 0 without any.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable

from callgate import Client, LLMRequest, Message
from callgate.domain.budgets import NANO_PER_USD, ORG_SCOPE, Window
from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import Reserved
from callgate.domain.provider import ProviderReply
from tests.support.ledger_under_test import USAGE, a_reserve, a_success, an_answer

CHILDREN = 4
ROUNDS = 6
RESULT_TIMEOUT_S = 60.0
POSTED = 60


class Organisations:
    """An organisation for each process, with its own limit and a call with its own answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answered = {n: self._answered(n) for n in range(CHILDREN + 1)}
        self.before = {n: client.handle(key.task_id) for n, key in self.answered.items()}
        self.results_before = {n: handle.async_result for n, handle in self.before.items()}

    def check(self, n: int) -> None:
        """Read everything of one organisation for some rounds; raise if anything is of another."""
        for turn in range(ROUNDS):
            (budget,) = self.client.budgets(org(n))
            assert (budget.org_id, budget.limit_nano_usd) == (org(n), limit(n)), budget
            (budget,) = self.client.operations.budgets(org(n))
            assert (budget.org_id, budget.limit_nano_usd) == (org(n), limit(n)), budget
            handle = self.client.submit(a_request(n, f"{os.getpid()} {turn}"))
            assert not handle.collapsed
            assert handle.state is CallState.QUEUED
            again = self.client.handle(self.answered[n].task_id)
            for old in (again, self.before[n]):
                assert old.get(timeout=RESULT_TIMEOUT_S).text == text(n)
            for result in (again.async_result, self.results_before[n]):
                assert result.get(
                    timeout=RESULT_TIMEOUT_S, disable_sync_subtasks=False
                ).text == text(n)

    def _answered(self, n: int) -> CallKey:
        self.client.operations.set_budget(org(n), ORG_SCOPE, Window.DAY, limit(n))
        key = self.client.submit(a_request(n, "answered")).key
        ledger = self.client.ledger
        (reserved,) = ledger.reserve([a_reserve(key)])
        assert isinstance(reserved, Reserved)
        reply = ProviderReply((text(n),), "stop", None, USAGE, None, "gpt-4o-mini", None)
        ledger.record([an_answer(reserved.ref, reply=reply.to_json())])
        ledger.settle([a_success(reserved.ref, POSTED)])
        return key


def org(n: int) -> str:
    """Return the organisation of a process."""
    return f"org-{n}"


def limit(n: int) -> int:
    """Return the limit of an organisation."""
    return (100 + n) * NANO_PER_USD


def text(n: int) -> str:
    """Return the answer to the call of an organisation."""
    return f"the answer of {org(n)} " * 2_000


def a_request(n: int, content: str) -> LLMRequest:
    """Return a request of an organisation."""
    return LLMRequest(
        org_id=org(n),
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=(Message(role="user", content=content),),
        max_output_tokens=10,
    )


def by_os_fork(work: Callable[[int], None]) -> list[int]:
    """Fork with `os.fork`; return the exit codes of the children."""
    pids = [os.fork() or _end(work, n) for n in range(1, CHILDREN + 1)]
    work(0)
    return [_exit_code(pid) for pid in pids]


def by_multiprocessing(work: Callable[[int], None]) -> list[int]:
    """Fork with `multiprocessing`; return the exit codes of the children."""
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=work, args=(n,)) for n in range(1, CHILDREN + 1)]
    for child in children:
        child.start()
    work(0)
    for child in children:
        child.join(RESULT_TIMEOUT_S)
        if child.is_alive():
            child.kill()
            child.join()
    return [child.exitcode or 0 for child in children]


def by_preloading_server(work: Callable[[int], None]) -> list[int]:
    """Fork like gunicorn with `preload_app`: the children serve a socket of the parent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(n: int) -> None:
            connection, _ = listener.accept()
            with connection:
                number = int(connection.recv(16))
                work(number)
                connection.sendall(b"200")

        pids = [os.fork() or _end(serve, n) for n in range(1, CHILDREN + 1)]
        said = [_asked(listener.getsockname(), n) for n in range(1, CHILDREN + 1)]
        work(0)
        codes = [_exit_code(pid) for pid in pids]
        assert [connection.recv(3) for connection in said] == [b"200"] * CHILDREN
        for connection in said:
            connection.close()
        return codes


def _asked(address: tuple[str, int], n: int) -> socket.socket:
    connection = socket.create_connection(address, timeout=RESULT_TIMEOUT_S)
    connection.sendall(str(n).encode())
    return connection


def _end(work: Callable[[int], None], n: int) -> int:
    """Run a child, and exit."""
    code = 1
    try:
        work(n)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(pid: int) -> int:
    give_up_at = time.monotonic() + RESULT_TIMEOUT_S
    while time.monotonic() < give_up_at:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


WAYS = {
    "os": by_os_fork,
    "multiprocessing": by_multiprocessing,
    "preload": by_preloading_server,
}


def main(way: str) -> int:
    """Use a client, fork while threads use it, and use it in every process."""
    with Client.from_env() as client:
        organisations = Organisations(client)
        is_over = threading.Event()

        def go_on() -> None:
            while not is_over.is_set():
                organisations.client.budgets(org(0))
                organisations.client.submit(
                    a_request(0, f"{threading.get_ident()} {time.monotonic()}")
                )

        threads = [threading.Thread(target=go_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            codes = WAYS[way](organisations.check)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        print(codes)  # noqa: T201 - for the message of a failed test
        return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
