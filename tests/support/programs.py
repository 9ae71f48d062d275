"""Programs that use callgate, run as their readers run them, with the catalogue of `examples/`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devkit.servers.embedded import DevServers
from devkit.simulator.script import RULES
from devkit.simulator.simulator import Match, Rule, Simulator, Step
from tests.support.deployment import CHECKOUT, Deployment, Process

EXAMPLES = CHECKOUT / "examples"
PATIENCE_S = 60.0
ADDRESS = "http://127.0.0.1:8080/v1"
"""Where the catalogue of the examples says that the simulator is."""


@contextmanager
def deployed(services: DevServers, provider: Simulator, folder: Path) -> Iterator[Deployment]:
    """A deployment with the catalogue of the examples, and a worker."""
    text = (EXAMPLES / "catalogue.toml").read_text("utf-8")
    assert text.count(ADDRESS) == 3
    catalogue = text.replace("{", "{{").replace("}", "}}").replace(ADDRESS, "{base_url}")
    with Deployment(services, provider, folder, catalogue=catalogue) as deployment:
        deployment.worker()
        yield deployment


def run(deployment: Deployment, *arguments: str, **environ: str) -> str:
    """Run a program in the checkout to its end; return what it said."""
    process = deployment.python("program", arguments, **environ)
    code = process.wait(PATIENCE_S)
    assert code == 0, process.output()
    return process.output()


def celery_worker(
    deployment: Deployment, app: str, folder: Path = CHECKOUT, **environ: str
) -> Process:
    """Start the pipeline's own worker; return when it is ready."""
    options = ["--loglevel", "INFO", "--concurrency", "1"]
    argv = ["-m", "celery", "--workdir", str(folder), "-A", app, "worker", *options]
    return deployment.python("pipeline", argv, **environ).until_it_says("ready.")


def rule(text: str, *steps: Step) -> Rule:
    """Requests with this text are answered by these steps."""
    return Rule(match=Match(text=text), reply=list(steps))


def answers_by_hand() -> list[Rule]:
    """What the simulator answers to a reader of the examples, without its latencies."""
    rules = RULES.validate_json((EXAMPLES / "answers.json").read_bytes())
    return [
        one.model_copy(
            update={"reply": [step.model_copy(update={"latency_s": 0.0}) for step in one.reply]}
        )
        for one in rules
    ]
