"""The search for workers on callgate's queues, as the doctor and every worker make it."""

from __future__ import annotations

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.consumers import consumers
from tests.support.valkey import Valkey


def test_a_search_does_not_fail_over_a_broker_that_was_restarted(server: Valkey) -> None:
    """In a process that has asked before, and so has connections which ended with the old server."""
    app = build_app(server.url, timeout_s=2)
    assert consumers(app) == []
    server.kill()
    server.start()

    assert consumers(app) == []
    app.close()
