"""The faults, each done to a deployment under load. What a fault itself finds wrong it returns, as complaints."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from redis import Redis

from callgate.adapters.broker.queue import CeleryQueue
from devkit.simulator.simulator import Rule, Step, Uniform
from tests.chaos.disk import fill_disk, refusals
from tests.chaos.environment import DEADLINE_S, GRACE_S, PATIENCE_S, USAGE, Stage
from tests.chaos.kill_points import Point
from tests.support.deployment import until
from tests.support.forked_workers import Child

OUTAGE_S = DEADLINE_S + GRACE_S + 0.5
"""Longer than any lease: without care everything would be called lost."""
Inject = Callable[[Stage], list[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the matrix."""

    name: str
    inject: Inject
    """Does the harm; returns when no more is done, with complaints."""
    check: Inject = lambda _: []
    """Asked for more complaints when everything has ended."""
    has_persistence: bool = True
    """Whether Valkey keeps its data on disk."""
    has_small_disk: bool = False


def worker_killed(stage: Stage) -> list[str]:
    """Kill -9 of workers at random moments, each replaced."""
    for _ in range(4):
        stage.pause(0.2, 1.0)
        stage.dice.choice(stage.living_workers()).kill()
        stage.worker().until_it_says("ready.")
    return []


def killed_at(point: Point, stage: Stage) -> list[str]:
    """Kill -9 at a named point: at the first pass there, and at a later one."""
    doomed = [stage.worker(point, passes) for passes in (1, stage.dice.randint(2, 10))]
    return [complaint for child in doomed for complaint in _death_of(child, point)]


def killed_at_every_point(stage: Stage) -> list[str]:
    """A worker for each named point, all at once; in the end healthy ones are left."""
    doomed = [(stage.worker(point, stage.dice.randint(1, 6)), point) for point in Point]
    return [complaint for child, point in doomed for complaint in _death_of(child, point)]


def _death_of(child: Child, point: Point) -> Iterable[str]:
    code = child.wait(PATIENCE_S)
    if code != -signal.SIGKILL:
        yield f"the worker doomed at {point} ended with {code}"


def deliveries_repeated(stage: Stage) -> list[str]:
    """What workers are at is delivered once more, calls and answers, many times."""
    queue = CeleryQueue(stage.deployment.client.celery_app, timeout_s=PATIENCE_S)
    copies = 0
    for _ in range(12):
        stage.until_in_flight(2)
        running = stage.running()
        queue.publish_calls([ref.key for ref in running])
        copies += len(running)
        for _ in range(10):  # Some come just when the answer does, and two workers settle it.
            queue.publish_logs(running)
            stage.pause(0.01, 0.04)
    stage.notes.append(f"{copies} deliveries were repeated")
    return ["nothing was delivered twice"] * (copies == 0)


def worker_frozen(stage: Stage) -> list[str]:
    """SIGSTOP of a worker past the lease of its calls, then SIGCONT: a zombie with late answers."""
    zombie = stage.workers[0]
    stage.until_in_flight(4)
    before = len(stage.unknown())
    stage.hit()
    zombie.send(signal.SIGSTOP)
    try:
        until(lambda: len(stage.unknown()) > before, PATIENCE_S, lambda: "the zombie held no call")
        stage.pause(1, 2)
    finally:
        zombie.send(signal.SIGCONT)
    return [] if zombie.is_alive() else ["the zombie did not come back"]


def workers_stopped(stage: Stage) -> list[str]:
    """SIGTERM of every worker with long calls in flight, one after the other, each replaced before."""
    long = Step(latency_s=Uniform(low_s=0.8, high_s=1.4), usage=USAGE)
    stage.deployment.provider.script([Rule(reply=[long])])
    complaints = []
    for worker in stage.living_workers():
        stage.worker().until_it_says("ready.")
        stage.until_in_flight(8)
        worker.send(signal.SIGTERM)
        code = worker.wait()
        complaints += [f"a stopped worker ended with {code}"] * (code != 0)
    return complaints


def valkey_killed(stage: Stage) -> list[str]:
    """Kill -9 of Valkey and its restart, twice."""
    for _ in range(2):
        stage.ear.hear_and_kill(stage.services.valkey)
        stage.pause(0.3, 1.0)
        stage.services.valkey.start()
        stage.pause(0.5, 1.5)
    return []


def valkey_flushed(stage: Stage) -> list[str]:
    """FLUSHALL, three times."""
    for _ in range(3):
        stage.ear.hear_and_flush()
        stage.pause(0.3, 1.0)
    return []


def valkey_frozen(stage: Stage) -> list[str]:
    """SIGSTOP of Valkey for longer than its clients wait, then SIGCONT."""
    stage.services.valkey.suspend()
    stage.pause(OUTAGE_S, OUTAGE_S + 1)
    stage.services.valkey.resume()
    return []


def valkey_refusing(stage: Stage) -> list[str]:
    """Valkey answers, and refuses every write, as with a full disk; no worker may end because of it."""
    with Redis.from_url(stage.services.broker_url) as valkey:
        valkey.config_set("min-replicas-to-write", 1)
        stage.pause(2, 3)
        valkey.config_set("min-replicas-to-write", 0)
    ended = [worker.code for worker in stage.workers if not worker.is_alive()]
    return [f"workers ended with {ended}"] * bool(ended)


def postgres_frozen(stage: Stage) -> list[str]:
    """SIGSTOP of Postgres past every lease, then SIGCONT; nothing may become UNKNOWN of it."""
    stage.services.postgres.suspend()
    stage.pause(OUTAGE_S, OUTAGE_S + 1)
    stage.services.postgres.resume()
    return []


def postgres_killed(stage: Stage) -> list[str]:
    """Kill -9 of Postgres, and its restart on the same data past every lease; nothing may become UNKNOWN of it."""
    stage.services.postgres.kill()
    stage.pause(OUTAGE_S, OUTAGE_S + 1)
    stage.services.postgres.start()
    return []


def postgres_restarted(stage: Stage) -> list[str]:
    """An orderly restart of Postgres, three times."""
    for _ in range(3):
        stage.services.postgres.stop()
        stage.services.postgres.start()
        stage.pause(0.3, 1.0)
    return []


def disk_full(stage: Stage) -> list[str]:
    """No room left for the ledger's files for some seconds."""
    with fill_disk(stage.services, stage.deployment) as how:
        stage.pause(3, 4)
        times = refusals(stage.services)
    stage.notes.append(f"{how}; Postgres complained {times} times")
    return ["the disk was never full"] * (times == 0)


def clock_skewed(stage: Stage) -> list[str]:
    """Two workers whose clocks are an hour off, each the other way, in other time zones; the right ones are killed."""
    right = stage.living_workers()
    for shift_s, zone in ((3600, "Pacific/Kiritimati"), (-3600, "America/Caracas")):
        argv = ["-m", "tests.chaos.killable_worker", "--clock-shift-s", str(shift_s)]
        stage.deployment.python(f"skewed{shift_s:+}", argv, TZ=zone).until_it_says("ready.")
    for worker in right:
        worker.kill()
    stage.hit()
    stage.until_it_flows()
    stage.pause(2, 3)
    return []


def nothing_unknown(stage: Stage) -> list[str]:
    """Complain of attempts that became UNKNOWN: no outage of a server, and no orderly stop, is a reason to."""
    unknown = len(stage.unknown())
    return [f"{unknown} attempts became UNKNOWN"] * (unknown > 0)


def only_the_dead_lost(stage: Stage) -> list[str]:
    """Complain of attempts that were called lost although their process was alive and well."""
    wronged = stage.lost_by() - {child.pid for child in stage.workers if not child.is_alive()}
    return [f"{len(wronged)} living processes were called lost"] * bool(wronged)


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
        Fault("clock_skewed", clock_skewed, only_the_dead_lost),
    )
}
