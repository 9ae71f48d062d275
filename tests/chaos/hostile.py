"""
A tenant that wants nothing but to stop the others, beside two that work: what they lose by it, and what they do not.

The rate is what the two get done in a second, by the ledger's own count, before the attack and under it, in one run on
one machine. Three tenants share the deployment, so that two thirds of it are the two's whatever the third does; half is
asked for, because the attacker's own process, its database sessions and its broker's clients run on the same cores.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from callgate.adapters.postgres.session import PostgresSession
from devkit.simulator.simulator import Match, Rule, Step
from tests.chaos.attacker import BOMB, KINDS, SLOW, UNDER_WAY
from tests.chaos.environment import ANSWER, USAGE, Environment
from tests.chaos.evaluation import Verdict, judge
from tests.support.forked_workers import Child
from tests.support.logins import a_client

WORKERS = 2
QUIET_S, ATTACK_S = 5.0, 12.0
SHARE_MIN = 0.5
WAIT_MAX_S = 15.0
"""From submission to end, for each call of the others that no killed worker held."""
RECOVERY_MAX_S = 30.0
"""
From the death of a worker to the end of every call of the others that was accepted before it.

A lease runs out, and processes for suspects are started. With one kind of attack it is 19 s to 24 s on two crowded
cores; idle ones need 8 s without any.
"""
PATIENCE_S = 30.0
WORKER_DATA_MAX_BYTES = 2**30
POSTED_NANO_USD = 50 * 1_000 + 30 * 2_000
"""What `USAGE` costs by the catalogue of chaos."""
RULES = (
    Rule(match=Match(text=BOMB), reply=[Step(text="{}")]),
    Rule(match=Match(text=SLOW), reply=[Step(latency_s=2.0, usage=USAGE)]),
    Rule(reply=[ANSWER], seed=0),
)


def run_hostile(environment: Environment, *, kinds: Sequence[str] = KINDS) -> Verdict:
    """Measure the others' rate, attack, kill a worker meanwhile, and judge what came of the others' calls."""
    deployment = environment.deployment
    deployment.provider.script(RULES)
    others = [deployment.org(), deployment.org()]
    environment.hostile = deployment.org()
    deployment.vouch_for_the_provider()
    fleet = [_limited(child) for child in _fleet(environment)]
    for org in others:
        environment.client([org], repeat=1, pause_s=0.4, give_up_after_s=PATIENCE_S)
    environment.until_it_flows()
    quiet = _rate(environment, others, QUIET_S)
    with (
        closing(PostgresSession(deployment.services.database_url)) as owner,
        a_client(owner, environment.hostile) as url,
    ):
        attacker, report = _attacker(environment, url, kinds)
        attacker.until_it_says(UNDER_WAY)
        began = environment.now()
        half = _rate(environment, others, ATTACK_S / 2)
        killed = fleet.pop(0)
        killed.kill()
        killed_at = environment.now()
        fleet.append(_limited(environment.worker()))
        rest = _rate(environment, others, ATTACK_S / 2)
        complaints = [*_unwell(environment, fleet), *_slow(environment, began, killed.pid)]
        recover_s = environment.recovery_s(killed_at, PATIENCE_S)
        environment.stop.touch()
        attacker.wait(PATIENCE_S)
    attacked = (half + rest) / 2
    environment.notes += [
        f"{quiet:.1f} calls a second, {half:.1f} under attack, {rest:.1f} after a worker was killed",
        f"the attacker's rounds: {report.read_text() if report.exists() else 'not told'}",
    ]
    evidence = environment.evidence(recover_s)
    wrong = {
        f"the others' rate fell from {quiet:.1f} to {attacked:.1f} calls a second": (
            attacked < SHARE_MIN * quiet
        ),
        f"recovery took {recover_s} s": recover_s is not None and recover_s > RECOVERY_MAX_S,
    }
    complaints += [words for words, is_so in wrong.items() if is_so]
    return judge(evidence, [*complaints, *_harmed(environment, others, killed.pid)])


def _fleet(environment: Environment) -> list[Child]:
    environment.fleet(WORKERS)
    return environment.living_workers()


def _limited(child: Child) -> Child:
    """Give a worker a heap that a healthy one does not fill."""
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
        broker_url=environment.services.broker_url,
        org=environment.hostile,
    )
    return child, report


def _rate(environment: Environment, orgs: Sequence[str], seconds: float) -> float:
    """How many of the others' calls succeed in a second."""
    sql = "SELECT count(*) FROM llm_call WHERE state = 'succeeded' AND org_id = ANY (:orgs)"
    began, before = time.monotonic(), environment.deployment.rows(sql, orgs=list(orgs))[0][0]
    time.sleep(seconds)
    done = environment.deployment.rows(sql, orgs=list(orgs))[0][0] - before
    return float(done) / (time.monotonic() - began)


def _unwell(environment: Environment, fleet: Sequence[Child]) -> list[str]:
    """Complain of workers that ended, or do not answer."""
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


def _harmed(environment: Environment, others: Sequence[str], killed: int) -> list[str]:
    """Complain of calls of the others that did not succeed, or were not posted by their usage."""
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
