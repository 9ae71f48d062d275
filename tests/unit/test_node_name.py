"""Workers of one machine have names of their own."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from worker import node_name

HOST = socket.gethostname()
PRINT = "from worker.node_name import node_name; print(node_name(None), flush=True); input()"


def started() -> tuple[subprocess.Popen[str], str]:
    """A process that has claimed its name, and the name."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", PRINT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> None:
    """Kill it."""
    process.kill()
    process.communicate()


def test_each_process_of_a_machine_has_its_own_and_a_killed_one_frees_it() -> None:
    """Other workers of this machine may have the first names."""
    one, first = started()
    two, second = started()
    try:
        assert first != second
        assert all(name.startswith("callgate") for name in (first, second))
        assert {name.partition("@")[2] for name in (first, second)} == {HOST}
    finally:
        ended(one)
    three, third = started()
    ended(two)
    ended(three)
    assert third == first


def test_a_name_that_is_given_is_taken_as_it_is() -> None:
    assert node_name.node_name("calls-7") == f"calls-7@{HOST}"


def test_without_abstract_sockets_the_process_id_is_in_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_name, "_claim", lambda number: False)
    name, _, host = node_name.node_name(None).partition("@")
    assert name.removeprefix("callgate-").isdigit()
    assert host == HOST
