"""The watch of a migration says which session it waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from worker import migrate

TIMEOUT_S = 5.0


class Holders:
    """An engine whose looks find these sessions, one after the other."""

    def __init__(self, *pids: int) -> None:
        self._rows = [("llm_call", "app", pid, 3) for pid in pids]
        self.is_used_up = threading.Event()

    @contextmanager
    def connect(self) -> Iterator[Any]:
        def execute(*_: object) -> Any:
            return SimpleNamespace(one_or_none=self._next)

        yield SimpleNamespace(exec_driver_sql=execute)

    def _next(self) -> tuple[str, str, int, int] | None:
        if self._rows:
            return self._rows.pop(0)
        self.is_used_up.set()
        return None


def test_each_holder_is_reported_once_per_process_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of process 123 contains `pid 12`, which is another session."""
    monkeypatch.setattr(migrate, "WATCH_INTERVAL_S", 0.001)
    holders, told = Holders(123, 123, 12, 123), list[str]()
    watch = migrate._Watch(cast(Engine, holders), told.append)

    with watch.over(7):
        assert holders.is_used_up.wait(TIMEOUT_S)

    assert told == [
        "llm_call is held by app (pid 123, in a transaction for 3 s)",
        "llm_call is held by app (pid 12, in a transaction for 3 s)",
    ]
    assert watch.last_holder == told[0]
