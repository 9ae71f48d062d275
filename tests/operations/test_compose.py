"""
`docker-compose.yml` and `Dockerfile` work: the command of each service runs as a process of this machine.

No Docker engine is needed. Only addresses and paths are replaced; everything else is used as written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from callgate.adapters.catalogue_file import load_catalogue
from callgate.domain.budgets import Window
from config.settings import CATALOGUE, WorkerOptions, WorkerSettings, check_relations
from devkit.servers.ports import free_port
from devkit.simulator.simulator import Rule, Step
from tests.support.deployment import CHECKOUT, Deployment, Process, until
from tests.support.flower_pages import crawl, get, status_of

NAMES = ("POSTGRES", "WORKER", "DASHBOARD", "BROKER", "FLOWER")
SECRETS = {f"CALLGATE_{name}_PASSWORD": f"secret{at}" for at, name in enumerate(NAMES)}
AUTH = f"callgate:{SECRETS['CALLGATE_FLOWER_PASSWORD']}"
PROMPT = "the prompt nobody but the provider may read"
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]*\}")


def compose(variables: Mapping[str, str] = SECRETS, part: str = "services") -> dict[str, Any]:
    """Read a part like `docker compose config`; a KeyError names a missing required variable."""
    text = (CHECKOUT / "docker-compose.yml").read_text()
    text = REQUIRED.sub(lambda found: variables[found.group(1)], text)
    found: dict[str, Any] = yaml.safe_load(text)[part]
    return found


def seconds(duration: str) -> float:
    """Return `120s` as a number."""
    return float(duration.removesuffix("s"))


@pytest.mark.parametrize("name", SECRETS)
def test_no_password_has_a_default(name: str) -> None:
    """A default password would be public, so nothing starts without one."""
    others = {key: value for key, value in SECRETS.items() if key != name}

    with pytest.raises(KeyError, match=name):
        compose(others)


def test_the_required_compose_version_is_documented() -> None:
    """Older versions refuse inline configs with an unclear error. Source: docs.docker.com, "Configs top-level"."""
    assert all("content" in config for config in compose(part="configs").values())

    for name in ("docker-compose.yml", "docs/running.md", "CHANGELOG.md"):
        assert "2.23.1" in (CHECKOUT / name).read_text()


def test_only_flower_is_published_and_only_on_loopback() -> None:
    """Postgres and Valkey are reachable from the containers only."""
    published = {name: s["ports"] for name, s in compose().items() if "ports" in s}

    assert published == {"flower": ["127.0.0.1:5555:5555"]}


def test_a_worker_may_stop_longer_than_its_shutdown_timeout() -> None:
    """A worker that is killed with calls in flight makes their outcomes unknown."""
    for name in ("call-worker", "log-worker"):
        service = compose()[name]
        shutdown_timeout_s = float(service["environment"]["CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S"])

        assert (
            seconds(service["stop_grace_period"])
            > shutdown_timeout_s + WorkerOptions().attempt_grace_s
        )
        catalogue = load_catalogue(CATALOGUE)
        policies = [catalogue.default, *catalogue.call_types.values()]
        assert shutdown_timeout_s > max(policy.deadline_s for policy in policies)


def test_the_defaults_work_together() -> None:
    """A worker with its two URLs, default settings and the catalogue of the checkout starts."""
    settings = WorkerSettings(database_url="postgresql://", broker_url="redis://")

    check_relations(settings, load_catalogue(CATALOGUE))


def test_services_wait_for_their_dependencies() -> None:
    """Workers and Flower wait for healthy servers and a migrated database."""
    for name in ("call-worker", "log-worker", "flower"):
        conditions = {k: v["condition"] for k, v in compose()[name]["depends_on"].items()}

        assert conditions == {
            "postgres": "service_healthy",
            "valkey": "service_healthy",
            "migrate": "service_completed_successfully",
        }
    assert compose()["migrate"]["restart"] == "no"


def test_every_permanent_service_has_a_health_check() -> None:
    """`docker compose ps` shows the health of every service except `migrate`, which ends."""
    without = {name for name, s in compose().items() if not s.get("healthcheck", {}).get("test")}

    assert without == {"migrate"}


def test_the_broker_keeps_its_messages() -> None:
    """It has an append-only file and no eviction: a full broker refuses messages."""
    command = " ".join(compose()["valkey"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_image_is_locked_and_runs_as_an_ordinary_user() -> None:
    """Every package is pinned by its hash, and the last user is not root."""
    lines = (CHECKOUT / "Dockerfile").read_text().splitlines()
    installs = [line for line in lines if "pip install" in line]

    assert all("--require-hashes" in i or "--no-build-isolation" in i for i in installs)
    assert [line for line in lines if line.startswith("USER")] == ["USER callgate"]


def test_the_image_has_every_package_of_the_checkout() -> None:
    """Every folder of the product is copied, and `.dockerignore` admits it."""
    dockerfile = (CHECKOUT / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in dockerfile if line.startswith("COPY")}
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()

    for name in ("callgate", "worker", "tasks", "config", "migrations"):
        assert name in copied
        assert f"!{name}" in ignored


def test_no_password_is_in_a_command() -> None:
    """`ps` and `docker inspect` show commands."""
    for service in compose().values():
        words = " ".join(
            [*service.get("command", []), *service.get("healthcheck", {}).get("test", [])]
        )
        assert not [secret for secret in SECRETS.values() if secret in words]
        assert '--broker "$$' not in words


def test_the_broker_requires_its_password() -> None:
    """Its health check and all its clients have the password."""
    password = SECRETS["CALLGATE_BROKER_PASSWORD"]
    valkey = compose()["valkey"]

    assert compose(part="configs")["broker"]["content"] == f"requirepass {password}\n"
    assert valkey["command"][1] == valkey["configs"][0]["target"]
    assert valkey["environment"] == {"REDISCLI_AUTH": password}
    for name in ("call-worker", "log-worker", "flower", "migrate"):
        assert f":{password}@valkey:" in compose()[name]["environment"]["CALLGATE_BROKER_URL"]


def test_only_the_migration_has_the_owner_s_login() -> None:
    """Permanent services have only the rights that they need."""
    logins = {
        name: make_url(service["environment"]["CALLGATE_DATABASE_URL"]).username
        for name, service in compose().items()
        if "CALLGATE_DATABASE_URL" in service.get("environment", {})
    }

    assert logins == {
        "migrate": "callgate",
        "call-worker": "worker",
        "log-worker": "worker",
        "flower": "dashboard",
    }


@pytest.fixture(scope="module")
def running(standing: Deployment) -> Iterator[dict[str, Process]]:
    """Run `migrate`, then the other services of callgate, each with its own command."""
    from worker.migrate import migrate

    migrate(standing.services.database_url, "base")
    standing.rows(compose(part="configs")["logins"]["content"])
    ports = {name: free_port() for name in ("call-worker", "log-worker", "flower")}
    assert start(standing, "migrate", free_port()).wait() == 0
    processes = {name: start(standing, name, port) for name, port in ports.items()}
    for name in ("call-worker", "log-worker"):
        processes[name].until_it_says("ready.")
    url = f"http://127.0.0.1:{ports['flower']}"
    until(lambda: status_of(f"{url}/healthcheck") == 200, 60.0, processes["flower"].output)
    found = {"FLOWER_URL": url, **{f"PORT_OF_{name}": str(port) for name, port in ports.items()}}
    standing.environ |= found
    yield processes
    for name in found:
        del standing.environ[name]
    for process in processes.values():
        process.stop()
    standing.rows("DROP ROLE worker, dashboard")


def start(deployment: Deployment, name: str, port: int) -> Process:
    """Start a service like compose, with addresses and paths of this machine."""
    service = compose()[name]
    secrets = deployment.folder / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "sim").write_text("any-key\n")
    own, database = (
        make_url(service["environment"]["CALLGATE_DATABASE_URL"]),
        make_url(deployment.services.database_url),
    )
    if own.username != database.username:
        database = database.set(username=own.username, password=own.password)
    here = {
        "CALLGATE_DATABASE_URL": database.render_as_string(hide_password=False),
        "CALLGATE_BROKER_URL": deployment.services.broker_url,
        "CALLGATE_CATALOGUE": str(catalogue_with_key(deployment)),
        "CALLGATE_WORKER__CREDENTIALS_DIR": str(secrets),
        "CALLGATE_WORKER__FLOWER_ADDRESS": "127.0.0.1",
        "CALLGATE_WORKER__FLOWER_PORT": str(port),
    }
    environ = {key: here.get(key, value) for key, value in service["environment"].items()}
    if name.endswith("worker"):
        environ["CALLGATE_WORKER__STATUS_PORT"] = str(port)
    argv = [sys.executable, "-m", "callgate", *service["command"]]
    process = Process(name, argv, environ, deployment.folder)
    deployment.adopt(process)
    return process


def catalogue_with_key(deployment: Deployment) -> Path:
    """Return the catalogue of the deployment with a provider that needs a key."""
    file = deployment.folder / "catalogue-with-key.toml"
    text = Path(deployment.environ["CALLGATE_CATALOGUE"]).read_text()
    file.write_text(text.replace("needs_key = false", "needs_key = true"))
    return file


def test_the_services_process_a_call(deployment: Deployment, running: dict[str, Process]) -> None:
    """One worker calls the provider with the mounted key, the other settles."""
    org = "compose"
    deployment.client.operations.set_budget(org, "org", Window.DAY, 10**9)

    result = deployment.client.submit(deployment.request(org)).get(timeout=60)

    assert result.text == "ok"
    assert all(process.is_alive() for process in running.values())


def test_a_running_process_is_healthy(deployment: Deployment, running: dict[str, Process]) -> None:
    """Each health check reaches its process."""
    for name in running:

        def is_healthy(name: str = name) -> bool:
            return health_check(deployment, name, deployment.environ[f"PORT_OF_{name}"]).wait() == 0

        until(is_healthy, 30.0, running[name].output)


def test_a_process_that_does_not_run_is_not_healthy(deployment: Deployment) -> None:
    nobodys = [
        health_check(deployment, name, str(free_port()))
        for name in ("call-worker", "log-worker", "flower")
    ]

    assert [check.wait() for check in nobodys] == [1, 1, 1]
    assert all("cannot be asked" in check.output() for check in nobodys)


def health_check(deployment: Deployment, name: str, port: str) -> Process:
    """Start the health check of a service, with the port that it has on this machine."""
    kind, _, *words = compose()[name]["healthcheck"]["test"]
    assert kind == "CMD"
    setting = "FLOWER_PORT" if name == "flower" else "STATUS_PORT"
    environ = {f"CALLGATE_WORKER__{setting}": port}
    return deployment.start("check", [sys.executable, *words], **environ)


def test_flower_requires_its_password(deployment: Deployment, running: dict[str, Process]) -> None:
    """Pages and API answer 401 without the password, and 200 with it."""
    url = deployment.environ["FLOWER_URL"]
    paths = ["/", "/tasks", "/api/tasks", "/api/workers"]

    assert {status_of(url + path) for path in paths} == {401}
    assert {status_of(url + path, AUTH) for path in paths} == {200}
    assert status_of(f"{url}/", "callgate:wrong") == 401


def test_flower_shows_calls_and_never_a_prompt(
    deployment: Deployment, running: dict[str, Process]
) -> None:
    """The task has its name, state and ids. No page and no API answer contains the prompt or the reply."""
    org = "compose"
    deployment.client.operations.set_budget(org, "org", Window.DAY, 10**9)
    deployment.provider.script([Rule(reply=[Step(text=f"an answer to {PROMPT}")])])
    url = deployment.environ["FLOWER_URL"]

    handle = deployment.client.submit(deployment.request(org, PROMPT))
    assert PROMPT in handle.get(timeout=60).text

    def task() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(get(f"{url}/api/tasks", AUTH)).get(handle.task_id, {})
        return found

    until(lambda: task().get("state") == "SUCCESS", 20.0, lambda: str(task()))
    assert task()["name"] == "callgate.call"
    assert task()["args"] == f"('{handle.key.call_id}', 1)"
    assert task()["kwargs"] == "{}"
    pages = dict(
        crawl(url, f"/task/{handle.task_id}", "/api/tasks", "/api/workers?refresh=1", auth=AUTH)
    )
    assert len(pages) > 5
    assert str(handle.key.call_id) in pages[f"/task/{handle.task_id}"]
    assert [path for path, body in pages.items() if PROMPT in body] == []
    for process in running.values():
        assert PROMPT not in process.output()
