"""What the ledger and the provider have recorded of a trial, as the evaluation needs it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from devkit.simulator.journal import RATE_LIMITED
from tests.chaos.evaluation import Arrival, Attempt
from tests.chaos.limits import Flow, LimitsSeen, Sent, at_one_time
from tests.chaos.mix import NAME_OF_PATH, TARGETS
from tests.support.deployment import Deployment

WAITS = "SELECT provider, count(*) FROM chaos.observation WHERE what = 'limited' GROUP BY provider"
REOPENED = """
SELECT provider, extract(epoch FROM at)::float8 FROM chaos.observation WHERE what = 'unblocked' ORDER BY at
"""
STARTED = """
SELECT attempt_id::text, extract(epoch FROM started_at)::float8, kind = 'probe' FROM ai_call_log
"""
MISPOSTED = """
SELECT provider, count(*) FROM ai_call_log
 WHERE status = 'succeeded' AND posted_nano_usd IS DISTINCT FROM :posted AND org_id <> :hostile
 GROUP BY provider
"""


class Records:
    """Reads the rows of the ledger and the journal of the provider."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def attempts(self, unknown_at_s: Mapping[str, float]) -> list[Attempt]:
        """Return every row of `ai_call_log`; of some it is known when they became UNKNOWN."""
        sql = "SELECT attempt_id::text, call_id::text, provider FROM ai_call_log"
        return [
            Attempt(id_, call_id, unknown_at_s.get(id_), provider)
            for id_, call_id, provider in self._deployment.rows(sql)
        ]

    def requests(self) -> list[Arrival]:
        """Return every request that reached the provider."""
        booted_at_s = time.time() - time.monotonic()
        records = self._deployment.provider.requests().records
        return [
            Arrival(
                r.attempt_id,
                booted_at_s + r.started_s,
                r.fault == RATE_LIMITED,
                NAME_OF_PATH[r.path],
                math.inf if r.finished_s is None else booted_at_s + r.finished_s,
            )
            for r in records
        ]

    def limits_seen(self, flow: Flow, requests: Sequence[Arrival]) -> dict[str, LimitsSeen]:
        """Return what was seen of the provider's limits, by entry of the catalogue."""
        rows = {id_: (at_s, is_probe) for id_, at_s, is_probe in self._deployment.rows(STARTED)}
        unblocked = defaultdict(list)
        for name, at_s in self._deployment.rows(REOPENED):
            unblocked[name].append(at_s)
        waits = dict(map(tuple, self._deployment.rows(WAITS)))
        seen = {}
        for name in TARGETS:
            own = [request for request in requests if request.provider == name]
            sent = []
            for request in own:
                at_s, is_probe = rows.get(request.attempt_id or "", (request.at_s, False))
                sent.append(Sent(request.at_s, request.is_refused, is_probe, request.at_s - at_s))
            seen[name] = LimitsSeen(
                flow=flow,
                sent=sent,
                in_flight_max=at_one_time((request.at_s, request.ended_at_s) for request in own),
                waits=waits.get(name, 0),
                unblocked_at_s=unblocked[name],
            )
        return seen

    def calls(self, hostile: str) -> list[tuple[str, str, str]]:
        """Return the task id, the entry and the state of every call, without those of an organisation."""
        sql = (
            "SELECT call_id || '.' || generation, provider, state FROM llm_call"
            " WHERE org_id NOT IN ('filler', :hostile)"
        )
        return [tuple(row) for row in self._deployment.rows(sql, hostile=hostile)]

    def misposted(self, posted_nano_usd: int | None, hostile: str) -> dict[str, int]:
        """Return how many successes are not posted at this, by entry; none are wrong if it is None."""
        if posted_nano_usd is None:
            return {}
        rows = self._deployment.rows(MISPOSTED, posted=posted_nano_usd, hostile=hostile)
        return dict(map(tuple, rows))
