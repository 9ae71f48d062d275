"""
Measure how callgate uses a declared limit: ten organisations share one provider, two workers make the calls.

    python -m tests.benchmarks.limits                   prints one JSON object; `make bench` has it too
    python -m tests.benchmarks.limits --calls 1000 --a-minute 1200
    python -m tests.benchmarks.limits --undeclared      the provider has the limit, the catalogue does not

Servers, workers and settings are those of production. The organisations submit one after the other, all calls of one
at once, so that only a fair order serves them alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import ProviderLimits, Rule, Simulator, Step
from tests.benchmarks.cpu import cpu_s
from tests.support.deployment import Deployment
from tests.support.limit_use import CATALOGUE, declared, share_used, until_all_ended, use_of
from worker.migrate import migrate

CALLS = 5_000
A_MINUTE = 4_000
"""Fewer than the calls: a limit that the whole run fits into refuses nothing, however fast the calls are sent."""
ORGANISATIONS = 10
WORKERS = 2
LATENCY_S = 0.5
EDGE_S = 5.0
"""What is left out at both ends of a run; between them callgate is in its steady state."""
TIMEOUT_S = 600.0


def limited_provider(
    calls: int = CALLS, a_minute: int = A_MINUTE, *, is_declared: bool = True
) -> dict[str, Any]:
    """Run calls against a limit of so many requests a minute; return the figures."""
    limits = ProviderLimits(requests=a_minute)
    lines = declared(requests=a_minute) if is_declared else ""
    with tempfile.TemporaryDirectory(prefix="callgate-limits-") as name:
        folder = Path(name)
        # The servers may run under another account.
        folder.chmod(0o755)
        with DevServers(folder / "servers") as services, Simulator(limits) as provider:
            migrate(services.database_url)
            catalogue = CATALOGUE + lines
            with Deployment(services, provider, folder, catalogue=catalogue) as deployment:
                return _measure(deployment, limits, calls)


def jain(amounts: Sequence[float]) -> float:
    """Return Jain's fairness index: 1 if all have the same, 1/n if one has everything."""
    squares = sum(amount**2 for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else 0.0


def _measure(deployment: Deployment, limits: ProviderLimits, calls: int) -> dict[str, Any]:
    # `Deployment` shortens the intervals of workers; this measures the defaults.
    for setting in [name for name in deployment.environ if name.startswith("CALLGATE_WORKER__")]:
        del deployment.environ[setting]
    deployment.provider.script([Rule(reply=[Step(latency_s=LATENCY_S)])])
    workers = deployment.have_workers(WORKERS)
    orgs = [deployment.org() for _ in range(ORGANISATIONS)]
    batches = [[deployment.request(org) for _ in range(calls // ORGANISATIONS)] for org in orgs]
    cpu_before_s = sum(cpu_s(worker.pid) for worker in workers)
    started_s = time.monotonic()
    for batch in batches:
        deployment.client.submit_many(batch)
    until_all_ended(deployment, TIMEOUT_S)
    use = use_of(deployment, limits, time.monotonic() - started_s)
    used_cpu_s = sum(cpu_s(worker.pid) for worker in workers) - cpu_before_s
    deployment.assert_audit_is_clean()
    return {
        "duration_s": round(use.duration_s, 1),
        "states": dict(use.states),
        "share_used": round(share_used(use.arrivals, limits, EDGE_S), 3),
        "refusals": use.refused,
        "fairness": round(jain(served_first(deployment, orgs, calls // 2)), 3),
        "cpu_ms_per_call": round(1000 * used_cpu_s / use.states.total(), 2),
    }


def served_first(deployment: Deployment, orgs: Sequence[str], count: int) -> list[int]:
    """Return how many of the first `count` answers each organisation had. At the end all have had the same."""
    sql = """
        SELECT org_id, count(*) FROM (
            SELECT org_id FROM ai_call_log WHERE status = 'succeeded' ORDER BY finished_at LIMIT :count
        ) AS first GROUP BY org_id
    """
    served = {str(org): int(answers) for org, answers in deployment.rows(sql, count=count)}
    return [served.get(org, 0) for org in orgs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure once, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.limits")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--a-minute", type=int, default=A_MINUTE, help="requests")
    parser.add_argument("--undeclared", action="store_true", help="no limit in the catalogue")
    options = parser.parse_args(arguments)
    figures = limited_provider(options.calls, options.a_minute, is_declared=not options.undeclared)
    sys.stdout.write(json.dumps({**vars(options), **figures}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
