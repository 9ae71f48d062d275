"""
Measure how long the recovery from a killed worker takes, with the default settings.

    python -m tests.benchmarks.recovery                        prints one JSON object
    python -m tests.benchmarks.recovery --in-flight 50 --latency-s 5

One worker has all calls in flight, other workers have none. It is killed with SIGKILL. From then on, the times are
measured until all its attempts are lost, until all calls are requested again, and until all have their results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.settings import WorkerOptions
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Kind, Rule, Simulator, Step
from tests.support.deployment import Deployment
from tests.support.waiting import until
from worker.migrate import migrate

RECOVERY_TIMEOUT_S = 600.0
STABLE_S = WorkerOptions().attempt_grace_s + 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure once, and print the times."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recovery")
    parser.add_argument("--in-flight", type=int, default=200, help="calls of the killed worker")
    parser.add_argument(
        "--latency-s", type=float, default=1.0, help="latency of the provider after the kill"
    )
    parser.add_argument("--survivors", type=int, default=2, help="workers that are not killed")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="callgate-recovery-") as name:
        folder = Path(name)
        # The servers may run under another account.
        folder.chmod(0o755)
        with DevServers(folder / "servers") as services, Simulator() as provider:
            migrate(services.database_url)
            with Deployment(services, provider, folder) as deployment:
                times = recovery(
                    deployment, options.in_flight, options.latency_s, options.survivors
                )
    figures = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        **vars(options),
        "lease_s": WorkerOptions().process_lease_s,
        **times,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def recovery(
    deployment: Deployment, in_flight: int, latency_s: float, survivors: int
) -> dict[str, Any]:
    """Kill a worker with `in_flight` calls; return the seconds since then."""
    # `Deployment` shortens the intervals of workers; this measures the defaults.
    for setting in [name for name in deployment.environ if name.startswith("CALLGATE_WORKER__")]:
        del deployment.environ[setting]
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(kind=Kind.HANG)])])
    (victim,) = deployment.have_workers(1)
    handles = deployment.client.submit_many(
        [deployment.request(org, call_type="patient") for _ in range(in_flight)]
    )
    until(lambda: deployment.provider.counts().in_flight == in_flight, RECOVERY_TIMEOUT_S)
    deployment.have_workers(1 + survivors)
    # A worker may expire attempts of others only after its lease has been stable for some time.
    stable_leases = (
        "SELECT count(*) FROM worker_lease WHERE now() - stable_since >= make_interval(secs => :s)"
    )
    until(
        lambda: deployment.rows(stable_leases, s=STABLE_S)[0][0] == 1 + survivors,
        RECOVERY_TIMEOUT_S,
    )
    deployment.provider.script([Rule(reply=[Step(latency_s=latency_s)])])

    deployment.close_breaker()
    victim.kill()
    killed_at = time.monotonic()

    def seconds_until(count: str) -> float:
        sql = f"SELECT {count} FROM ai_call_log WHERE org_id = :org"  # noqa: S608
        until(lambda: deployment.rows(sql, org=org)[0][0] == in_flight, RECOVERY_TIMEOUT_S)
        return round(time.monotonic() - killed_at, 1)

    times = {
        "lost_s": seconds_until("count(*) FILTER (WHERE attempt = 1 AND posted_at IS NOT NULL)"),
        "requested_again_s": seconds_until("count(*) FILTER (WHERE attempt > 1)"),
    }  # fmt: skip
    done = list(deployment.client.as_completed(handles, timeout=RECOVERY_TIMEOUT_S))
    times["done_s"] = round(time.monotonic() - killed_at, 1)
    assert {handle.get().attempts for handle in done} == {2}
    return times


if __name__ == "__main__":
    sys.exit(main())
