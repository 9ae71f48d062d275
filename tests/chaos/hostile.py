"""
A hostile tenant attacks two other tenants: measure the rate of their calls, and check their results.

The rate is the number of their calls per second that the ledger shows as succeeded, before and during the attack, on
one machine. Three tenants share the deployment, so the two should keep two thirds of it. Half is required, because the
process of the attacker and its sessions run on the same cores.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from callgate.adapters.postgres.session import PostgresSession
from devkit.simulator.simulator import Match, Rule, Step
from tests.chaos.attacker import BOMB, KINDS, SLOW, UNDER_WAY
from tests.chaos.environment import ANSWER, POSTED_NANO_USD, USAGE, Environment
from tests.chaos.evaluation import Evaluation, evaluate
from tests.support.forked_workers import Child
from tests.support.logins import a_client

WORKERS = 2
QUIET_S, ATTACK_S = 5.0, 12.0
SHARE_MIN = 0.5
WAIT_MAX_S = 15.0
"""The longest time from submission to end of a call of the others, without those of the killed worker."""
RECOVERY_MAX_S = 30.0
"""
The longest time from the death of a worker to the end of all calls that the others had submitted before.

In this time a lease expires, and child processes for quarantined calls start. With one kind of attack it takes 19 s to
24 s on two busy cores, and without an attack 8 s on idle ones.
"""
RECOVERY_WAIT_S = 30.0
WORKER_DATA_MAX_BYTES = 2**30
RULES = (
    Rule(match=Match(text=BOMB), reply=[Step(text="{}")]),
    Rule(match=Match(text=SLOW), reply=[Step(latency_s=2.0, usage=USAGE)]),
    Rule(reply=[ANSWER], seed=0),
)


def run_hostile(environment: Environment, *, kinds: Sequence[str] = KINDS) -> Evaluation:
    """Measure the rate of the others, attack, kill a worker, and evaluate the calls of the others."""
    deployment = environment.deployment
    deployment.provider.script(RULES)
    others = [deployment.org(), deployment.org()]
    environment.hostile = deployment.org()
    environment.close_breakers()
    environment.start_workers(WORKERS)
    workers = [_limited(child) for child in environment.living_workers()]
    for org in others:
        environment.client([org], repeat=1, pause_s=0.4, give_up_after_s=RECOVERY_WAIT_S)
    environment.until_calls_succeed()
    quiet = _rate(environment, others, QUIET_S)
    with (
        closing(PostgresSession(deployment.services.database_url)) as owner,
        a_client(owner, environment.hostile) as url,
    ):
        attack = _attack(environment, url, kinds, others, workers)
    environment.notes.insert(0, f"{quiet:.1f} calls a second before the attack")
    observations = environment.observe(attack.recover_s)
    checks = {
        f"the rate of the others fell from {quiet:.1f} to {attack.rate:.1f} calls a second": (
            attack.rate < SHARE_MIN * quiet
        ),
        f"recovery took {attack.recover_s} s": (
            attack.recover_s is not None and attack.recover_s > RECOVERY_MAX_S
        ),
    }
    violations = [text for text, is_violated in checks.items() if is_violated]
    wrong_calls = _wrong_calls(environment, others, attack.killed_pid)
    return evaluate(observations, [*attack.violations, *violations, *wrong_calls])


@dataclass(frozen=True, slots=True)
class Attack:
    """What was measured during the attack."""

    rate: float
    """Calls of the others per second."""
    killed_pid: int
    recover_s: float | None
    violations: Sequence[str]


def _attack(
    environment: Environment,
    url: str,
    kinds: Sequence[str],
    others: Sequence[str],
    workers: list[Child],
) -> Attack:
    """Run the attacker, kill and replace a worker in the middle, and measure."""
    attacker, report = _attacker(environment, url, kinds)
    attacker.until_it_says(UNDER_WAY)
    began = environment.now()
    before_kill = _rate(environment, others, ATTACK_S / 2)
    killed = workers.pop(0)
    killed.kill()
    killed_at = environment.now()
    workers.append(_limited(environment.worker()))
    after_kill = _rate(environment, others, ATTACK_S / 2)
    violations = [*_unhealthy(environment, workers), *_slow(environment, began, killed.pid)]
    recover_s = environment.recovery_s(killed_at, RECOVERY_WAIT_S)
    environment.stop.touch()
    attacker.wait(RECOVERY_WAIT_S)
    environment.notes += [
        f"{before_kill:.1f} calls a second under attack, {after_kill:.1f} after a worker was killed",
        f"rounds of the attacker: {report.read_text() if report.exists() else 'no report'}",
    ]
    return Attack((before_kill + after_kill) / 2, killed.pid, recover_s, violations)


def _limited(child: Child) -> Child:
    """Limit the heap of a worker to much more than a healthy worker needs."""
    child.until_it_says("ready.")
    resource.prlimit(
        child.pid, resource.RLIMIT_DATA, (WORKER_DATA_MAX_BYTES, WORKER_DATA_MAX_BYTES)
    )
    return child


def _attacker(environment: Environment, url: str, kinds: Sequence[str]) -> tuple[Child, Path]:
    report = environment.deployment.folder / "attacker.json"
    child = environment.fork_server.fork(
        "tests.chaos.attacker",
        environment.deployment.environ,
        kinds=list(kinds),
        report=str(report),
        stop=str(environment.stop),
        database_url=url,
        broker_url=environment.servers.broker_url,
        org=environment.hostile,
    )
    return child, report


def _rate(environment: Environment, orgs: Sequence[str], seconds: float) -> float:
    """Return how many calls of the others succeed per second."""
    sql = "SELECT count(*) FROM llm_call WHERE state = 'succeeded' AND org_id = ANY (:orgs)"
    began, before = time.monotonic(), environment.deployment.rows(sql, orgs=list(orgs))[0][0]
    time.sleep(seconds)
    done = environment.deployment.rows(sql, orgs=list(orgs))[0][0] - before
    return float(done) / (time.monotonic() - began)


def _unhealthy(environment: Environment, fleet: Sequence[Child]) -> list[str]:
    """Return violations for workers that ended or do not answer."""
    ended = [f"a worker ended with {child.code}" for child in fleet if not child.is_alive()]
    answers = environment.deployment.client.celery_app.control.ping(timeout=3)
    deaf = len(fleet) - len(answers)
    return ended + [f"{deaf} workers answer no ping"] * (deaf > 0)


def _slow(environment: Environment, since: object, killed: int) -> list[str]:
    """Complain of calls of the others that took too long, or still do; not of those that a killed worker held."""
    sql = (
        "SELECT count(*), max(took) FROM ("
        " SELECT coalesce((SELECT max(a.finished_at) FROM ai_call_log a WHERE a.call_id = c.call_id"
        "   AND a.status = 'succeeded'), clock_timestamp()) - c.created_at AS took FROM llm_call c"
        " WHERE c.org_id <> :hostile AND c.created_at >= :since AND NOT EXISTS (SELECT FROM ai_call_log k"
        "   WHERE k.call_id = c.call_id AND split_part(k.worker_id, ':', 2)::int = :killed)) x"
        " WHERE took > make_interval(secs => :max)"
    )
    rows = environment.deployment.rows(
        sql, hostile=environment.hostile, since=since, killed=killed, max=WAIT_MAX_S
    )
    return [f"{n} calls of the others took up to {took}" for n, took in rows if n]


def _wrong_calls(environment: Environment, others: Sequence[str], killed: int) -> list[str]:
    """Return violations for calls of the others that did not succeed, or were not posted by their usage."""
    sql = (
        "SELECT status, error_json::json ->> 'code' AS code, posted_nano_usd, count(*) FROM ai_call_log"
        " WHERE org_id = ANY (:orgs) AND split_part(worker_id, ':', 2)::int <> :killed GROUP BY 1, 2, 3"
    )
    wrong = [
        f"{n} attempts of the others are {status} ({code}), and post {posted} nano-USD"
        for status, code, posted, n in environment.deployment.rows(
            sql, orgs=list(others), killed=killed
        )
        if (status, posted) != ("succeeded", POSTED_NANO_USD)
    ]
    sql = (
        "SELECT state, wait_reason, error, attempt, count(*) FROM llm_call"
        " WHERE org_id = ANY (:orgs) AND state <> 'succeeded' GROUP BY 1, 2, 3, 4"
    )
    left = [
        f"{n} calls of the others are {state} ({reason}) after {attempt} attempts: {error}"
        for state, reason, error, attempt, n in environment.deployment.rows(sql, orgs=list(others))
    ]
    return [*wrong, *left]
