"""The simulation catches planted defects. It takes a minute."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.simulation.fixtures import quiet_services
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.run import REPORT_LINES, SeedResult, parser, run_seed

__all__ = ["quiet_services"]

MUTANT_SEEDS_MAX = 400
FATE = re.compile(r": [a-z' ]+$")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.name}--{m.rules[0]}")
def test_a_planted_defect_is_caught(mutation: Mutation) -> None:
    """By the invariant it breaks; and the seed that caught it catches it again, with the same trace."""
    with mutation.plant():
        seeds = [*range(mutation.seed, MUTANT_SEEDS_MAX), *range(mutation.seed)]
        results = (run_seed(seed, faults=mutation.faults) for seed in seeds)
        caught = next((life for life in results if life.rule), None)
        assert caught is not None, f"{MUTANT_SEEDS_MAX} seeds did not notice"
        again = run_again(caught.report)

    assert caught.rule in mutation.rules, caught.report
    assert again.report == caught.report
    assert_tells_what_happened(caught.report)


def run_again(report: str) -> SeedResult:
    """Do what the last line of a report says."""
    seed, arguments = [*shlex.split(report.splitlines()[-1].partition("SEED=")[2]), ""][:2]
    options = parser().parse_args(["--seed", seed, *shlex.split(arguments.removeprefix("ARGS="))])
    return run_seed(options.seed, faults=options.faults)


def assert_tells_what_happened(report: str) -> None:
    """Short, without idle lines; each call that the violation names is in it from its submission on."""
    _, *lines, why, again = report.splitlines()
    told = [line.split(maxsplit=3)[3] for line in lines]

    assert again.startswith("again: ")
    assert len(report.splitlines()) <= REPORT_LINES
    assert not [
        line
        for line in told
        if line.startswith(("leases.renew w", "publishes sweep")) and not FATE.search(line)
    ]
    idle = ("take_due", "take_lost_messages", "settle", "keep_link_outcomes")
    assert not [line for line in told if line.rstrip(" ->") in idle]
    assert not [line for line in told if re.search(r"\bstr\b|NewSubmission|callview", line)]
    for call in re.findall(r"\bc\d+\.\d+\b", why):
        submitted = rf"submit .*(created|joined|replayed|failed) {re.escape(call)},"
        assert [line for line in told if re.match(submitted, line)], call
