"""The faults, injected into a deployment under load. Each returns the violations that it found itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis import Redis

from callgate.adapters.broker.queue import CeleryQueue
from devkit.simulator.simulator import Rule, Step, Uniform
from tests.chaos.disk import disk_errors, fill_disk
from tests.chaos.environment import DEADLINE_S, END_MAX_S, GRACE_S, USAGE, Environment
from tests.chaos.kill_points import Point
from tests.chaos.limits import MINUTE, TIGHT, UNDECLARED, Flow
from tests.support.deployment import until
from tests.support.forked_workers import Child

OUTAGE_S = DEADLINE_S + GRACE_S + 0.5
"""Longer than an attempt may take, so that running attempts must not expire only because of the outage."""
Inject = Callable[[Environment], list[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, with its name on the command line."""

    name: str
    inject: Inject
    """Injects the fault; returns violations when it is over."""
    check: Inject = lambda _: []
    """Returns more violations when all calls have ended."""
    has_persistence: bool = True
    """Whether Valkey keeps its data on disk."""
    has_small_disk: bool = False
    flow: Flow = TIGHT
    """The limits of the provider."""
    load: Mapping[str, Any] = field(default_factory=dict)
    """What its clients do differently."""
    seconds: float = 0.0
    """The least time of load, if it is not that of the others."""


def worker_killed(environment: Environment) -> list[str]:
    """Kill workers with SIGKILL at random moments, and replace each."""
    for _ in range(4):
        environment.pause(0.2, 1.0)
        environment.rng.choice(environment.living_workers()).kill()
        environment.worker().until_it_says("ready.")
    return []


def killed_at(point: Point, environment: Environment) -> list[str]:
    """Have workers kill themselves at a point: one at its first pass, one at a later pass."""
    killed = [environment.worker(point, passes) for passes in (1, environment.rng.randint(2, 10))]
    return [violation for child in killed for violation in _wrong_exit(child, point)]


def killed_at_every_point(environment: Environment) -> list[str]:
    """Run one worker for each point at the same time; the ordinary workers remain."""
    killed = [(environment.worker(point, environment.rng.randint(1, 6)), point) for point in Point]
    return [violation for child, point in killed for violation in _wrong_exit(child, point)]


def _wrong_exit(child: Child, point: Point) -> Iterable[str]:
    code = child.wait(END_MAX_S)
    if code != -signal.SIGKILL:
        yield f"the worker that should kill itself at {point} ended with {code}"


def deliveries_repeated(environment: Environment) -> list[str]:
    """Publish the calls and settlements of running attempts again, many times."""
    queue = CeleryQueue(environment.deployment.client.celery_app, timeout_s=END_MAX_S)
    copies = 0
    for _ in range(12):
        environment.until_in_flight(2)
        running = environment.running()
        queue.publish_calls([ref.key for ref in running])
        copies += len(running)
        for _ in range(10):  # Some arrive together with the answer, and two workers settle it.
            queue.publish_settle_tasks(running)
            environment.pause(0.01, 0.04)
    environment.notes.append(f"{copies} messages were published again")
    return ["no message was published again"] * (copies == 0)


def worker_frozen(environment: Environment) -> list[str]:
    """Suspend a worker until its attempts expire, then continue it: its answers are late."""
    before = len(environment.unknown_since_s())
    environment.mark_fault()
    frozen = _frozen_with_a_call(environment)
    try:
        until(
            lambda: len(environment.unknown_since_s()) > before,
            END_MAX_S,
            lambda: "the frozen worker had no call",
        )
        environment.pause(1, 2)
    finally:
        frozen.send(signal.SIGCONT)
    return [] if frozen.is_alive() else ["the frozen worker did not continue"]


def _frozen_with_a_call(environment: Environment) -> Child:
    """Suspend a worker at a moment when it has a call; it has none in most moments."""
    frozen = environment.workers[0]

    def has_call() -> bool:
        environment.until_in_flight(1)
        frozen.send(signal.SIGSTOP)
        if environment.has_call(frozen.pid):
            return True
        frozen.send(signal.SIGCONT)
        return False

    until(has_call, END_MAX_S, lambda: "the worker has no call")
    return frozen


def workers_stopped(environment: Environment) -> list[str]:
    """Stop every worker with SIGTERM while long calls are in flight, after starting its replacement."""
    long = Step(latency_s=Uniform(low_s=0.8, high_s=1.4), usage=USAGE)
    environment.deployment.provider.script([Rule(reply=[long])])
    violations = []
    for worker in environment.living_workers():
        environment.worker().until_it_says("ready.")
        environment.until_in_flight(6)
        worker.send(signal.SIGTERM)
        code = worker.wait()
        violations += [f"a stopped worker ended with {code}"] * (code != 0)
    return violations


def valkey_killed(environment: Environment) -> list[str]:
    """Kill Valkey with SIGKILL and restart it, twice."""
    for _ in range(2):
        environment.links.collect_and_kill(environment.servers.valkey)
        environment.pause(0.3, 1.0)
        environment.servers.valkey.start()
        environment.pause(0.5, 1.5)
    return []


def valkey_flushed(environment: Environment) -> list[str]:
    """FLUSHALL, three times."""
    for _ in range(3):
        environment.links.collect_and_flush()
        environment.pause(0.3, 1.0)
    return []


def valkey_frozen(environment: Environment) -> list[str]:
    """Suspend Valkey for longer than its clients wait, then continue it."""
    environment.servers.valkey.suspend()
    environment.pause(OUTAGE_S, OUTAGE_S + 1)
    environment.servers.valkey.resume()
    return []


def valkey_refusing(environment: Environment) -> list[str]:
    """Have Valkey refuse every write, as with a full disk. No worker may end."""
    with Redis.from_url(environment.servers.broker_url) as valkey:
        valkey.config_set("min-replicas-to-write", 1)
        try:
            environment.pause(2, 3)
        finally:
            valkey.config_set("min-replicas-to-write", 0)
    ended = [worker.code for worker in environment.workers if not worker.is_alive()]
    return [f"workers ended with {ended}"] * bool(ended)


def postgres_frozen(environment: Environment) -> list[str]:
    """Suspend Postgres for longer than any lease, then continue it. No attempt may become UNKNOWN."""
    environment.servers.postgres.suspend()
    environment.pause(OUTAGE_S, OUTAGE_S + 1)
    environment.servers.postgres.resume()
    return []


def postgres_killed(environment: Environment) -> list[str]:
    """Kill Postgres, and restart it on its data after longer than any lease. No attempt may become UNKNOWN."""
    environment.servers.postgres.kill()
    environment.pause(OUTAGE_S, OUTAGE_S + 1)
    environment.servers.postgres.start()
    return []


def postgres_restarted(environment: Environment) -> list[str]:
    """Restart Postgres with an orderly shutdown, three times."""
    for _ in range(3):
        environment.servers.postgres.stop()
        environment.servers.postgres.start()
        environment.pause(0.3, 1.0)
    return []


def disk_full(environment: Environment) -> list[str]:
    """Fill the disk of the ledger for some seconds."""
    with fill_disk(environment.servers, environment.deployment) as how:
        environment.pause(3, 4)
        times = disk_errors(environment.servers)
    environment.notes.append(f"{how}; Postgres logged {times} errors")
    return ["the disk was never full"] * (times == 0)


def clock_skewed(environment: Environment) -> list[str]:
    """Run two workers with clocks an hour ahead and an hour behind, in other time zones; kill the other workers."""
    correct = environment.living_workers()
    for shift_s, zone in ((3600, "Pacific/Kiritimati"), (-3600, "America/Caracas")):
        argv = ["-m", "tests.chaos.killable_worker", "--clock-shift-s", str(shift_s)]
        environment.deployment.python(f"skewed{shift_s:+}", argv, TZ=zone).until_it_says("ready.")
    for worker in correct:
        worker.kill()
    environment.mark_fault()
    environment.until_calls_succeed()
    environment.pause(2, 3)
    return []


def limit_used_up(environment: Environment) -> list[str]:
    """Kill, wipe and restart, again and again, while the limit of a whole minute is used up."""
    violations = []
    for _ in range(3):
        violations += killed_at(Point.AFTER_RESERVE, environment)
        environment.links.collect_and_flush()
        environment.pause(1, 2)
        environment.servers.postgres.stop()
        environment.servers.postgres.start()
        environment.pause(3, 4)
        environment.rng.choice(environment.living_workers()).kill()
        environment.worker().until_it_says("ready.")
    return violations


def limit_met(environment: Environment) -> list[str]:
    """Meet a limit that nobody has declared; kill a worker and wipe the broker while the key is blocked."""
    environment.until_refused()
    environment.rng.choice(environment.living_workers()).kill()
    environment.links.collect_and_flush()
    environment.worker().until_it_says("ready.")
    return []


def nothing_unknown(environment: Environment) -> list[str]:
    """Return a violation if attempts became UNKNOWN: outages of servers and orderly stops are no reason."""
    unknown = len(environment.unknown_since_s())
    return [f"{unknown} attempts became UNKNOWN"] * (unknown > 0)


def only_killed_workers_lost(environment: Environment) -> list[str]:
    """Return a violation if attempts became lost although their process was alive."""
    alive = environment.pids_of_lost_attempts() - {
        child.pid for child in environment.workers if not child.is_alive()
    }
    return [f"{len(alive)} processes are alive, but their attempts became lost"] * bool(alive)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("worker_killed", worker_killed),
        *(Fault(f"killed_{point}", partial(killed_at, point)) for point in Point),
        Fault("worker_frozen", worker_frozen),
        Fault("workers_stopped", workers_stopped, nothing_unknown),
        Fault("deliveries_repeated", deliveries_repeated, nothing_unknown),
        Fault("valkey_killed", valkey_killed, nothing_unknown),
        Fault("valkey_killed_in_memory", valkey_killed, nothing_unknown, has_persistence=False),
        Fault("valkey_flushed", valkey_flushed, nothing_unknown),
        Fault("valkey_frozen", valkey_frozen, nothing_unknown),
        Fault("valkey_refusing", valkey_refusing, nothing_unknown),
        Fault("postgres_frozen", postgres_frozen, nothing_unknown),
        Fault("postgres_killed", postgres_killed, nothing_unknown),
        Fault("postgres_restarted", postgres_restarted, nothing_unknown),
        Fault("disk_full", disk_full, nothing_unknown, has_persistence=False, has_small_disk=True),
        Fault("clock_skewed", clock_skewed, only_killed_workers_lost),
        Fault("limit_used_up", limit_used_up, flow=MINUTE, load={"pause_s": 0.4}, seconds=65),
        # All at once, and not many: an unknown limit is used slowly after it was met.
        Fault("limit_met", limit_met, flow=UNDECLARED, load={"pause_s": 0.02, "total_max": 180}),
    )
}
