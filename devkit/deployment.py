"""
A whole deployment on this machine, for tests of pipelines: embedded servers, a simulated provider and one worker.

The fixture `callgate_deployment` loads this file by its path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from callgate.client import Client
from callgate.domain.budgets import NANO_PER_USD, ORG_SCOPE, Window
from callgate.settings import PREFIX, ClientSettings
from devkit.processes import stop
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator
from worker.migrate import migrate
from worker.tied_process import tied

PROVIDER, MODEL = "simulator", "simulator"
START_TIMEOUT_S, STOP_TIMEOUT_S = 90.0, 15.0
POLL_S = 0.1
TAIL_CHARS = 2_000
DEFAULT_BUDGET_USD = 1_000
CATALOGUE = f"""
[providers.{PROVIDER}]
base_url = "{{base_url}}"
needs_key = false
unlimited = true

[default]
max_output_tokens_default = 500
deadline_s = 15
retry_wait_s = 0.1
retry_wait_max_s = 0.5
unknown_wait_s = 0.1

[[prices]]
provider = "{PROVIDER}"
model = "{MODEL}"
input_usd_per_million = 1
output_usd_per_million = 2
source = "made up, for tests"
as_of = 2026-11-01
"""


class DeploymentFailed(RuntimeError):
    """The worker did not start."""


class Deployment:
    """
    Runs everything inside a `with`. Calls go to the provider `simulator`, whose model is `simulator`.

    `client` submits, and `simulator` is scripted; see docs/simulator.md.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.simulator = Simulator()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            servers = stack.enter_context(
                DevServers(self.folder / "data", fsync=False, valkey_persistence=False)
            )
            stack.enter_context(self.simulator)
            migrate(servers.database_url)
            catalogue = self.folder / "catalogue.toml"
            catalogue.write_text(CATALOGUE.format(base_url=self.simulator.base_url))
            environ = {
                "CALLGATE_DATABASE_URL": servers.database_url,
                "CALLGATE_BROKER_URL": servers.broker_url,
                "CALLGATE_CATALOGUE": str(catalogue),
            }
            self.environ = environ
            """The variables of a further process of the pipeline."""
            self._start_worker(stack)
            self.client = stack.enter_context(self._client(servers, catalogue))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def set_budget(self, org_id: str, usd: float = DEFAULT_BUDGET_USD) -> None:
        """Set the budget of an organisation per day; without one its calls are rejected."""
        nano_usd = round(usd * NANO_PER_USD)
        self.client.operations.set_budget(org_id, ORG_SCOPE, Window.DAY, nano_usd)

    def _client(self, servers: DevServers, catalogue: Path) -> Client:
        return Client(
            ClientSettings(
                database_url=SecretStr(servers.database_url),
                broker_url=SecretStr(servers.broker_url),
                catalogue=catalogue,
                poll_max_s=0.05,
            )
        )

    def _start_worker(self, stack: ExitStack) -> None:
        """Start a worker, and return when it is ready."""
        log = self.folder / "worker.log"
        others = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        with log.open("wb") as output:
            worker = subprocess.Popen(  # noqa: S603 - the argument list is ours
                tied([sys.executable, "-m", "callgate", "worker"]),
                env={**others, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        stack.callback(stop, worker, STOP_TIMEOUT_S)
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while "ready." not in (said := log.read_text(errors="replace")):
            if worker.poll() is not None or time.monotonic() > give_up_at:
                raise DeploymentFailed(f"the worker did not start; it said:\n{said[-TAIL_CHARS:]}")
            time.sleep(POLL_S)
