"""
Six things that go wrong in production, prepared on a real deployment: `python -m tests.support.situations NAME`.

A reader who knows none of the code gets one of them, without its name, and has to say what is wrong. The command prints
the variables of the deployment, and keeps it running until its standard input ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.errors import BudgetExhausted
from callgate.handle import Handle
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import ErrorBody, Kind, ReportedUsage, Rule, Simulator, Step
from tests.support.deployment import Deployment
from worker.migrate import migrate

ORG = "acme"
CALLS = 5
PATIENCE_S = 60.0
SOON = {
    "CALLGATE_WORKER__ALERT_INTERVAL_S": "1",
    "CALLGATE_WORKER__PROCESS_LEASE_S": "5",
}


def some_calls(deployment: Deployment, count: int = CALLS) -> list[Handle]:
    """Submit calls of one organisation, and wait for none."""
    return [deployment.client.submit(deployment.request(ORG)) for _ in range(count)]


def no_key(deployment: Deployment) -> None:
    """The provider needs a key, and the worker has none."""
    folder = deployment.folder / "keys"
    folder.mkdir()
    have_catalogue(deployment, {"needs_key = false": "needs_key = true"})
    deployment.worker(CALLGATE_WORKER__CREDENTIALS_DIR=str(folder), **SOON)
    some_calls(deployment)


def provider_down(deployment: Deployment) -> None:
    """Nothing listens where the provider should be."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    have_catalogue(deployment, {deployment.provider.base_url: f"http://127.0.0.1:{port}/v1"})
    deployment.worker(**SOON)
    some_calls(deployment, 20)


def quota_used_up(deployment: Deployment) -> None:
    """The account at the provider has no money left."""
    error = ErrorBody(
        message="You exceeded your current quota.",
        type="insufficient_quota",
        code="insufficient_quota",
    )
    deployment.provider.script([Rule(reply=(Step(kind=Kind.STATUS, status=429, error=error),))])
    deployment.worker(**SOON)
    some_calls(deployment)


def tenant_over_budget(deployment: Deployment) -> None:
    """One organisation has used its budget of the day, others have not."""
    # So that a call costs much of what it holds.
    deployment.provider.script([Rule(reply=(Step(usage=ReportedUsage(completion_tokens=50)),))])
    deployment.worker(**SOON)
    deployment.limit("bolt", NANO_PER_USD)
    deployment.limit(ORG, 5 * deployment.hold_of(deployment.request(ORG)))
    for handle in some_calls(deployment, 60):
        with suppress(BudgetExhausted):
            handle.get(timeout=PATIENCE_S)
    deployment.client.submit(deployment.request("bolt")).get(timeout=PATIENCE_S)


def worker_frozen(deployment: Deployment) -> None:
    """The process of one of two workers is alive, and does nothing."""
    frozen, _ = deployment.worker(**SOON), deployment.worker(**SOON)
    for handle in some_calls(deployment):
        handle.get(timeout=PATIENCE_S)
    os.kill(frozen.pid, signal.SIGSTOP)
    some_calls(deployment)


def catalogue_differs(deployment: Deployment) -> None:
    """One of two workers has another price list."""
    changed = {"input_usd_per_million = 1\n": "input_usd_per_million = 3\n"}
    have_catalogue(deployment, {"[default]\n": "[alerts]\nworkers_differ_s = 2\n\n[default]\n"})
    deployment.worker(**SOON)
    deployment.worker(CALLGATE_CATALOGUE=with_changes(deployment, changed), **SOON)
    for handle in some_calls(deployment):
        handle.get(timeout=PATIENCE_S)


SITUATIONS: Mapping[str, Callable[[Deployment], None]] = {
    prepare.__name__: prepare
    for prepare in (
        no_key,
        provider_down,
        quota_used_up,
        tenant_over_budget,
        worker_frozen,
        catalogue_differs,
    )
}


def have_catalogue(deployment: Deployment, changes: Mapping[str, str]) -> None:
    """Change the catalogue for everybody who starts from now on."""
    deployment.environ["CALLGATE_CATALOGUE"] = with_changes(deployment, changes)


def with_changes(deployment: Deployment, changes: Mapping[str, str]) -> str:
    """Write a catalogue beside that of the deployment, and return its path."""
    text = Path(deployment.environ["CALLGATE_CATALOGUE"]).read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    file = deployment.folder / f"catalogue-{uuid4().hex}.toml"
    file.write_text(text)
    return str(file)


def main() -> None:
    """Prepare one situation, and keep it."""
    prepare = SITUATIONS[sys.argv[1]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="callgate-")))
        services = stack.enter_context(DevServers(folder, fsync=False, valkey_persistence=False))
        migrate(services.database_url)
        provider = stack.enter_context(Simulator())
        deployment = stack.enter_context(Deployment(services, provider, folder))
        deployment.limit(ORG, NANO_PER_USD)
        prepare(deployment)
        for name in ("DATABASE_URL", "BROKER_URL", "CATALOGUE"):
            print(f"export CALLGATE_{name}='{deployment.environ[f'CALLGATE_{name}']}'")  # noqa: T201
        print("ready", flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main()
