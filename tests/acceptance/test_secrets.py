"""
Canaries: keys, passwords, prompts and answers that must show up nowhere but where they belong.

Real calls that end in every way run through a worker that logs at DEBUG, under the least-privilege logins, with Flower
watching; then everything that can be looked at is searched, base64 and all.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, ValidationError
from redis import Redis
from sqlalchemy import LargeBinary, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from callgate import Client, Handle, LLMRequest, Message, cli
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tables import metadata
from callgate.adapters.postgres.tenants import PostgresTenants, Tenant
from callgate.domain.calls import Bodies
from callgate.domain.errors import CallgateError
from callgate.settings import ClientSettings
from config.settings import WorkerOptions, WorkerSettings
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from devkit.simulator.simulator import ErrorBody, Kind, Match, Rule, Simulator, Step
from tests.acceptance.test_compose import crawl, status_of
from tests.support.deployment import RICH_NANO_USD, Deployment, Process, until
from tests.support.logins import a_login, name_of

PATIENCE_S = 60.0
ORG, RIVAL = "canary-org", "canary-rival"
KEY = f"sk-canary{uuid4().hex}"
ORG_KEY = f"sk-canary{uuid4().hex}"
BROKER_PASSWORD = f"canary{uuid4().hex}"
FLOWER_PASSWORD = f"canary{uuid4().hex}"
PROMPT = f"canary prompt {uuid4().hex}"
ANSWER = f"canary answer {uuid4().hex}"
STOP = f"canary stop {uuid4().hex}"
FIELD = f"canary_field_{uuid4().hex}"
KEYS = (KEY, ORG_KEY)
TEXTS = (PROMPT, ANSWER, STOP, FIELD)
BODIES = {("llm_call", "request"), ("ai_call_log", "reply")}
BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")


class Schema(BaseModel):
    """What an answer must look like."""

    answer: str


def quoting(status: int) -> Step:
    """A provider's error that repeats everything it was sent."""
    words = f"Incorrect API key provided: {KEY} {ORG_KEY}. You asked: {PROMPT}; stop at {STOP}."
    return Step(
        kind=Kind.STATUS, status=status, error=ErrorBody(message=words, code=KEY, param=PROMPT)
    )


ENDS: dict[str, Step] = {
    "success": Step(text=ANSWER),
    "key refused": quoting(401),
    "request refused": quoting(400),
    "provider broken": quoting(500),
    "timeout": Step(kind=Kind.HANG),
    "cut off": Step(kind=Kind.TRUNCATED_BODY, text=ANSWER),
    "garbage": Step(kind=Kind.GARBAGE),
    "no completion": Step(kind=Kind.WRONG_SCHEMA),
    "answer off the schema": Step(text=json.dumps({FIELD: ANSWER})),
    "redirected": Step(kind=Kind.REDIRECT),
}
MODELS = {name: f"sim-{n}" for n, name in enumerate(ENDS, start=2)}
"""One each: a model whose key is refused, or that is broken, keeps other calls waiting."""
PRICE = """
[[prices]]
provider = "sim"
model = "{model}"
input_usd_per_million = 1
output_usd_per_million = 2
source = "acceptance tests"
as_of = 2026-11-01
"""


class Monitor:
    """Everything that is said to the broker, while a `with` block runs."""

    def __init__(self, url: str) -> None:
        self.commands: list[str] = []
        self._valkey = Redis.from_url(url)
        self._has_begun = threading.Event()
        self._end = f"end {uuid4()}"
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        assert self._has_begun.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._valkey.echo(self._end)
        self._thread.join(20)
        self._valkey.close()

    def _listen(self) -> None:
        with self._valkey.monitor() as monitor:
            self._has_begun.set()
            for command in monitor.listen():
                self.commands.append(str(command["command"]))
                if self._end in self.commands[-1]:
                    return


@dataclass
class Seen:
    """What was to be seen, by where."""

    broker: str = ""
    logs: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    command_lines: str = ""
    reprs: dict[str, str] = field(default_factory=dict)
    handles: dict[str, Handle] = field(default_factory=dict)
    passwords: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def seen(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    """Run everything once, and collect."""
    folder = tmp_path_factory.mktemp("canaries")
    with ExitStack() as stack:
        deployment = stack.enter_context(Deployment(services, provider, folder))
        urls = {
            role: stack.enter_context(a_login(services.database_url, role))
            for role in (CLIENT, WORKER, DASHBOARD)
        }
        prepare(deployment, urls)
        provider.script([Rule(match=Match(text=name), reply=[step]) for name, step in ENDS.items()])
        port = free_port()
        loud = [sys.executable, "-m", "tests.support.verbose_worker"]
        worker = deployment.start(
            "worker", loud, CALLGATE_DATABASE_URL=urls[WORKER], OPENAI_LOG="debug"
        )
        flower = deployment.start(
            "flower",
            [sys.executable, "-m", "callgate", "flower"],
            CALLGATE_DATABASE_URL=urls[DASHBOARD],
            CALLGATE_WORKER__FLOWER_PORT=str(port),
        )
        worker.until_it_says("ready.")
        until(
            lambda: status_of(f"http://127.0.0.1:{port}/healthcheck") == 200,
            PATIENCE_S,
            flower.output,
        )
        client = stack.enter_context(deployment.open_client(database_url=urls[CLIENT]))
        seen = Seen(passwords=tuple(str(make_url(url).password) for url in urls.values()))
        with Monitor(services.broker_url) as monitor:
            run(client, seen)
            look_at_flower(port, seen)
        seen.broker = "\n".join([*monitor.commands, *left_over(services.broker_url)])
        seen.logs = {"worker": worker.output(), "flower": flower.output()}
        seen.command_lines = command_lines(worker, flower)
        seen.rows = dict(columns(services.database_url))
        look_at_command_line(deployment, urls[CLIENT], seen)
        deployment.assert_books_are_right()
        yield seen


def prepare(deployment: Deployment, urls: dict[str, str]) -> None:
    """Budgets, the client's organisation, keys in variable and file, passwords in both URLs."""
    for org in (ORG, RIVAL):
        deployment.limit(org, RICH_NANO_USD)
    owner = PostgresSession(deployment.services.database_url)
    PostgresTenants(owner).grant(Tenant(name_of(urls[CLIENT]), ORG))
    owner.close()
    secrets = deployment.folder / "secrets"
    secrets.mkdir()
    (secrets / f"sim.{ORG}").write_text(ORG_KEY)
    catalogue = Path(deployment.environ["CALLGATE_CATALOGUE"])
    declared = catalogue.read_text().replace("needs_key = false", "needs_key = true")
    prices = [PRICE.format(model=model) for model in MODELS.values()]
    catalogue.write_text("".join([declared, *prices]))
    broker = deployment.services.broker_url.replace("://", f"://default:{BROKER_PASSWORD}@")
    deployment.environ |= {
        "CALLGATE_BROKER_URL": broker,
        "CALLGATE_WORKER__CREDENTIALS__SIM": KEY,
        "CALLGATE_WORKER__CREDENTIALS_DIR": str(secrets),
        "CALLGATE_WORKER__FLOWER_BASIC_AUTH": f"callgate:{FLOWER_PASSWORD}",
    }


def run(client: Client, seen: Seen) -> None:
    """Submit one call for each end, and wait for all of them."""
    seen.handles = {name: client.submit(a_request(name)) for name in ENDS}
    list(client.as_completed(seen.handles.values(), timeout=PATIENCE_S))
    for name, handle in seen.handles.items():
        try:
            handle.get(timeout=1)
        except CallgateError as error:
            seen.reprs[f"error of {name}"] = f"{error!r} {error} {error.__cause__!r}"
    (view, *_) = client.ledger.read([seen.handles["success"].key], Bodies.BOTH)
    seen.reprs |= {
        "client": repr(client),
        "settings": f"{client.settings!r} {client.settings} {vars(client.settings)}",
        "app": f"{client.celery_app!r} {client.celery_app.connection_for_write()!r}",
        "request": f"{a_request('repr')!r} {a_request('repr')}",
        "handle": repr(seen.handles["success"]),
        "call": repr(view),
    }


def a_request(name: str) -> LLMRequest:
    """A request whose every free text is a canary; its attempts are over within seconds."""
    return LLMRequest(
        org_id=ORG,
        call_type="brief",
        provider="sim",
        model=MODELS.get(name, "sim-1"),
        messages=(Message(role="user", content=f"{name}: {PROMPT}"),),
        stop=(STOP,),
        response_schema=None
        if name != "answer off the schema"
        else {
            "type": "object",
            "required": ["answer"],
            "title": FIELD,
            "additionalProperties": False,
        },
    )


def look_at_flower(port: int, seen: Seen) -> None:
    """Every page and every answer of the API that can be reached, the worker's own page included."""
    url, task_id = f"http://127.0.0.1:{port}", seen.handles["success"].task_id
    pages = [
        f"/task/{task_id}",
        "/api/tasks",
        "/api/workers?refresh=1",
        "/broker",
        "/api/queues/length",
    ]
    seen.pages = dict(crawl(url, *pages, auth=f"callgate:{FLOWER_PASSWORD}"))


def left_over(url: str) -> Iterator[str]:
    """Whatever the broker still holds."""
    with Redis.from_url(url) as valkey:
        for key in valkey.scan_iter():
            yield f"{key!r} {valkey.dump(key)!r}"


def columns(url: str) -> Iterator[tuple[str, str]]:
    """All rows of all tables, column by column."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            for column in table.columns:
                values = connection.scalars(text(f'SELECT "{column.name}" FROM {table.name}'))  # noqa: S608
                is_binary = isinstance(column.type, LargeBinary)
                words = [bytes(v).decode("latin-1") if is_binary and v else str(v) for v in values]
                yield f"{table.name}.{column.name}", "\n".join(words)


def command_lines(*processes: Process) -> str:
    """What `ps` shows of them."""
    ids = [process._child.pid for process in processes]
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in ids)


def look_at_command_line(deployment: Deployment, url: str, seen: Seen) -> None:
    """What the commands of a client, and those of an operator, print about calls that went well or badly."""
    handles = list(seen.handles.values())
    asked: dict[str, list[Sequence[str]]] = {
        url: [
            ("calls", "list", "--json"),
            ("costs", "--json"),
            ("budget", "show", "--json"),
            ("doctor", "--model", "sim/sim-1", "--json"),
            *(("calls", "show", handle.task_id, "--json") for handle in handles),
        ],
        deployment.services.database_url: [
            ("dead", "list", "--json"),
            ("dead", "stats", "--json"),
            ("dead", "show", handles[-1].task_id),
            ("audit", "--json"),
            ("tenants", "list", "--json"),
        ],
    }
    for database_url, commands in asked.items():
        for command in commands:
            told = io.StringIO()
            with redirect_stdout(told), redirect_stderr(told):
                code = cli.run(
                    command, lambda chosen=database_url: deployment.open_client(database_url=chosen)
                )
            assert code == 0, (command, told.getvalue())
            seen.answers[" ".join(command)] = told.getvalue()


def found(secrets: Sequence[str], where: str) -> list[str]:
    """The secrets that a text holds, as they are or in base64."""
    decoded = [where, *map(_decoded, BASE64.findall(where))]
    return [secret for secret in secrets if any(secret in part for part in decoded)]


def _decoded(word: str) -> str:
    try:
        return base64.b64decode(word + "=" * (-len(word) % 4)).decode("latin-1")
    except binascii.Error:
        return ""


def test_the_search_finds_what_is_there() -> None:
    """Or the other tests could not fail."""
    hidden = base64.b64encode(f"[[], {{}}, {PROMPT}]".encode()).decode()

    assert found(TEXTS, f'LPUSH q {{"body": "{hidden}"}}') == [PROMPT]
    assert found(KEYS, f"Bearer {KEY}") == [KEY]


def test_the_calls_ended_as_they_should(seen: Seen) -> None:
    """One well, the others badly, under logins that may do no more than their work; so there was something to leak."""
    states = {name: handle.state.value for name, handle in seen.handles.items()}

    assert states == {name: "succeeded" if name == "success" else "dead" for name in ENDS}
    assert PROMPT in seen.rows["llm_call.request"]
    assert ANSWER in seen.rows["ai_call_log.reply"]


def test_messages_and_events_hold_ids_only(seen: Seen) -> None:
    """All that went through the broker while the calls ran, and all that it still holds."""
    assert "callgate.log_call" in seen.broker
    assert "task-succeeded" in "".join(map(_decoded, BASE64.findall(seen.broker))) + seen.broker
    assert found([*KEYS, *TEXTS, *seen.passwords, FLOWER_PASSWORD], seen.broker) == []


def test_everything_on_the_wire_is_json(seen: Seen) -> None:
    """Every content type that was named on the broker."""
    assert set(re.findall(r"content-type\W+([\w./-]+)", seen.broker)) == {"application/json"}


def test_no_log_holds_a_secret(seen: Seen) -> None:
    """Neither of a worker that logs at DEBUG, nor of Flower."""
    for output in seen.logs.values():
        assert (
            found([*KEYS, *TEXTS, *seen.passwords, BROKER_PASSWORD, FLOWER_PASSWORD], output) == []
        )
    assert "callgate_settle_v1" in seen.logs["worker"]


def test_no_row_holds_a_secret_but_bodies(seen: Seen) -> None:
    """Texts are where they belong; keys and passwords are nowhere."""
    for name, values in seen.rows.items():
        assert found([*KEYS, *seen.passwords, BROKER_PASSWORD], values) == [], name
        if tuple(name.split(".")) not in BODIES:
            assert found(TEXTS, values) == [], name


def test_flower_shows_no_secret(seen: Seen) -> None:
    """Pages and API, the settings on the worker's page included."""
    assert any(page.startswith("/worker/") for page in seen.pages)
    for path, body in seen.pages.items():
        secrets = [*KEYS, *TEXTS, *seen.passwords, BROKER_PASSWORD, FLOWER_PASSWORD]
        assert found(secrets, body) == [], path


def test_the_command_line_prints_no_secret(seen: Seen) -> None:
    """Lists and single calls, the dead ones with their reasons; also not in what `ps` shows."""
    passwords = [*KEYS, *seen.passwords, BROKER_PASSWORD, FLOWER_PASSWORD]
    secrets = [*passwords, *TEXTS]
    for asked, answer in seen.answers.items():
        # Whoever decides about a dead letter is shown its texts.
        hidden = passwords if asked.startswith("dead show") else secrets
        assert found(hidden, answer) == [], asked
    assert len(json.loads(seen.answers["dead list --json"])["calls"]) == 9
    assert found(secrets, seen.command_lines) == []


def test_no_repr_and_no_error_holds_a_secret(seen: Seen) -> None:
    """Settings, clients, requests, calls; and what callers are told of calls that ended badly."""
    secrets = [*KEYS, *TEXTS, *seen.passwords, BROKER_PASSWORD]
    assert len([name for name in seen.reprs if name.startswith("error of")]) == 9
    for name, words in seen.reprs.items():
        assert found(secrets, words) == [], name


def test_a_request_that_cannot_be_made_is_not_quoted() -> None:
    """The complaint says what is wrong, and with which field."""
    with pytest.raises(ValidationError) as refused:
        LLMRequest.model_validate(
            {"messages": [{"role": PROMPT, "content": [PROMPT]}], "stop": PROMPT}
        )

    assert "messages.0.content" in str(refused.value)
    assert found(TEXTS, f"{refused.value} {refused.value!r}") == []


def test_settings_hide_what_is_secret() -> None:
    """In a repr, as text, and in the complaint about a bad one."""
    urls: dict[str, Any] = {
        "database_url": f"postgresql://u:{KEY}@h/d",
        "broker_url": f"redis://:{BROKER_PASSWORD}@h",
    }
    worker = WorkerOptions(credentials={"openai": KEY}, flower_basic_auth=f"a:{FLOWER_PASSWORD}")  # type: ignore[dict-item, arg-type]
    settings = WorkerSettings(**urls, worker=worker)

    shown = f"{settings!r} {settings} {ClientSettings(**urls)!r} {settings.model_dump_json()}"

    assert found([*KEYS, BROKER_PASSWORD, FLOWER_PASSWORD], shown) == []
