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
from tests.chaos.environment import DEADLINE_S, GRACE_S, PATIENCE_S, USAGE, Environment
from tests.chaos.kill_points import Point
from tests.support.deployment import until
from tests.support.forked_workers import Child

OUTAGE_S = DEADLINE_S + GRACE_S + 0.5
"""Longer than any lease: without care everything would be called lost."""
Inject = Callable[[Environment], list[str]]


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


def worker_killed(environment: Environment) -> list[str]:
    """Kill -9 of workers at random moments, each replaced."""
    for _ in range(4):
        environment.pause(0.2, 1.0)
        environment.dice.choice(environment.living_workers()).kill()
        environment.worker().until_it_says("ready.")
    return []


def killed_at(point: Point, environment: Environment) -> list[str]:
    """Kill -9 at a named point: at the first pass there, and at a later one."""
    doomed = [environment.worker(point, passes) for passes in (1, environment.dice.randint(2, 10))]
    return [complaint for child in doomed for complaint in _death_of(child, point)]


def killed_at_every_point(environment: Environment) -> list[str]:
    """A worker for each named point, all at once; in the end healthy ones are left."""
    doomed = [(environment.worker(point, environment.dice.randint(1, 6)), point) for point in Point]
    return [complaint for child, point in doomed for complaint in _death_of(child, point)]


def _death_of(child: Child, point: Point) -> Iterable[str]:
    code = child.wait(PATIENCE_S)
    if code != -signal.SIGKILL:
        yield f"the worker doomed at {point} ended with {code}"


def deliveries_repeated(environment: Environment) -> list[str]:
    """What workers are at is delivered once more, calls and answers, many times."""
    queue = CeleryQueue(environment.deployment.client.celery_app, timeout_s=PATIENCE_S)
    copies = 0
    for _ in range(12):
        environment.until_in_flight(2)
        running = environment.running()
        queue.publish_calls([ref.key for ref in running])
        copies += len(running)
        for _ in range(10):  # Some come just when the answer does, and two workers settle it.
            queue.publish_settle_tasks(running)
            environment.pause(0.01, 0.04)
    environment.notes.append(f"{copies} deliveries were repeated")
    return ["nothing was delivered twice"] * (copies == 0)


def worker_frozen(environment: Environment) -> list[str]:
    """SIGSTOP of a worker past the lease of its calls, then SIGCONT: a zombie with late answers."""
    zombie = environment.workers[0]
    environment.until_in_flight(4)
    before = len(environment.unknown())
    environment.hit()
    zombie.send(signal.SIGSTOP)
    try:
        until(
            lambda: len(environment.unknown()) > before,
            PATIENCE_S,
            lambda: "the zombie held no call",
        )
        environment.pause(1, 2)
    finally:
        zombie.send(signal.SIGCONT)
    return [] if zombie.is_alive() else ["the zombie did not come back"]


def workers_stopped(environment: Environment) -> list[str]:
    """SIGTERM of every worker with long calls in flight, one after the other, each replaced before."""
    long = Step(latency_s=Uniform(low_s=0.8, high_s=1.4), usage=USAGE)
    environment.deployment.provider.script([Rule(reply=[long])])
    complaints = []
    for worker in environment.living_workers():
        environment.worker().until_it_says("ready.")
        environment.until_in_flight(8)
        worker.send(signal.SIGTERM)
        code = worker.wait()
        complaints += [f"a stopped worker ended with {code}"] * (code != 0)
    return complaints


def valkey_killed(environment: Environment) -> list[str]:
    """Kill -9 of Valkey and its restart, twice."""
    for _ in range(2):
        environment.links.hear_and_kill(environment.services.valkey)
        environment.pause(0.3, 1.0)
        environment.services.valkey.start()
        environment.pause(0.5, 1.5)
    return []


def valkey_flushed(environment: Environment) -> list[str]:
    """FLUSHALL, three times."""
    for _ in range(3):
        environment.links.hear_and_flush()
        environment.pause(0.3, 1.0)
    return []


def valkey_frozen(environment: Environment) -> list[str]:
    """SIGSTOP of Valkey for longer than its clients wait, then SIGCONT."""
    environment.services.valkey.suspend()
    environment.pause(OUTAGE_S, OUTAGE_S + 1)
    environment.services.valkey.resume()
    return []


def valkey_refusing(environment: Environment) -> list[str]:
    """Valkey answers, and refuses every write, as with a full disk; no worker may end because of it."""
    with Redis.from_url(environment.services.broker_url) as valkey:
        valkey.config_set("min-replicas-to-write", 1)
        environment.pause(2, 3)
        valkey.config_set("min-replicas-to-write", 0)
    ended = [worker.code for worker in environment.workers if not worker.is_alive()]
    return [f"workers ended with {ended}"] * bool(ended)


def postgres_frozen(environment: Environment) -> list[str]:
    """SIGSTOP of Postgres past every lease, then SIGCONT; nothing may become UNKNOWN of it."""
    environment.services.postgres.suspend()
    environment.pause(OUTAGE_S, OUTAGE_S + 1)
    environment.services.postgres.resume()
    return []


def postgres_killed(environment: Environment) -> list[str]:
    """Kill -9 of Postgres, and its restart on the same data past every lease; nothing may become UNKNOWN of it."""
    environment.services.postgres.kill()
    environment.pause(OUTAGE_S, OUTAGE_S + 1)
    environment.services.postgres.start()
    return []


def postgres_restarted(environment: Environment) -> list[str]:
    """An orderly restart of Postgres, three times."""
    for _ in range(3):
        environment.services.postgres.stop()
        environment.services.postgres.start()
        environment.pause(0.3, 1.0)
    return []


def disk_full(environment: Environment) -> list[str]:
    """No room left for the ledger's files for some seconds."""
    with fill_disk(environment.services, environment.deployment) as how:
        environment.pause(3, 4)
        times = refusals(environment.services)
    environment.notes.append(f"{how}; Postgres complained {times} times")
    return ["the disk was never full"] * (times == 0)


def clock_skewed(environment: Environment) -> list[str]:
    """Two workers whose clocks are an hour off, each the other way, in other time zones; the right ones are killed."""
    right = environment.living_workers()
    for shift_s, zone in ((3600, "Pacific/Kiritimati"), (-3600, "America/Caracas")):
        argv = ["-m", "tests.chaos.killable_worker", "--clock-shift-s", str(shift_s)]
        environment.deployment.python(f"skewed{shift_s:+}", argv, TZ=zone).until_it_says("ready.")
    for worker in right:
        worker.kill()
    environment.hit()
    environment.until_it_flows()
    environment.pause(2, 3)
    return []


def nothing_unknown(environment: Environment) -> list[str]:
    """Complain of attempts that became UNKNOWN: no outage of a server, and no orderly stop, is a reason to."""
    unknown = len(environment.unknown())
    return [f"{unknown} attempts became UNKNOWN"] * (unknown > 0)


def only_the_dead_lost(environment: Environment) -> list[str]:
    """Complain of attempts that were called lost although their process was alive and well."""
    wronged = environment.lost_by() - {
        child.pid for child in environment.workers if not child.is_alive()
    }
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
