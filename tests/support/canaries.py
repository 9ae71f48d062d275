"""Canaries (keys, passwords, prompts, answers), calls that carry them, and collectors of everything that is visible."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

from redis import Redis
from sqlalchemy import LargeBinary, create_engine, text
from sqlalchemy.pool import NullPool

from callgate import Client, Handle, LLMRequest, Message, cli
from callgate.adapters.postgres.roles import CLIENT
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tables import metadata
from callgate.adapters.postgres.tenants import PostgresTenants, Tenant
from callgate.domain.calls import Bodies
from callgate.domain.errors import CallgateError
from devkit.simulator.simulator import ErrorBody, Kind, Step
from tests.support.deployment import RICH_NANO_USD, Deployment, Process
from tests.support.flower_pages import crawl
from tests.support.logins import name_of

TIMEOUT_S = 60.0
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


def quoting(status: int) -> Step:
    """A provider's error that quotes the keys, the prompt and the stop sequence."""
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
    "not JSON": Step(kind=Kind.NOT_JSON),
    "no completion": Step(kind=Kind.WRONG_SCHEMA),
    "answer off the schema": Step(text=json.dumps({FIELD: ANSWER})),
    "redirected": Step(kind=Kind.REDIRECT),
}
MODELS = {name: f"sim-{n}" for n, name in enumerate(ENDS, start=2)}
"""One model for each end: a circuit breaker of one would delay calls with another end."""
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
    """Records all commands that the broker gets during a `with` block."""

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
class Collected:
    """Everything that was visible, by place."""

    broker: str = ""
    logs: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    command_lines: str = ""
    reprs: dict[str, str] = field(default_factory=dict)
    handles: dict[str, Handle] = field(default_factory=dict)
    passwords: tuple[str, ...] = ()


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


def run(client: Client, seen: Collected) -> None:
    """Submit one call for each end, wait for all, and collect errors and reprs."""
    seen.handles = {name: client.submit(a_request(name)) for name in ENDS}
    list(client.as_completed(seen.handles.values(), timeout=TIMEOUT_S))
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
    """A request with canaries in all its free texts. Its attempts end within seconds."""
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


def collect_flower_pages(port: int, seen: Collected) -> None:
    """Collect all reachable pages and API answers, including the worker's page."""
    url, task_id = f"http://127.0.0.1:{port}", seen.handles["success"].task_id
    pages = [
        f"/task/{task_id}",
        "/api/tasks",
        "/api/workers?refresh=1",
        "/broker",
        "/api/queues/length",
    ]
    seen.pages = dict(crawl(url, *pages, auth=f"callgate:{FLOWER_PASSWORD}"))


def stored_in_broker(url: str) -> Iterator[str]:
    """All keys and values that the broker still holds."""
    with Redis.from_url(url) as valkey:
        for key in valkey.scan_iter():
            yield f"{key!r} {valkey.dump(key)!r}"


def stored_columns(url: str) -> Iterator[tuple[str, str]]:
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
    """The command lines of the processes, as in `ps`."""
    ids = [process._child.pid for process in processes]
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in ids)


def collect_command_output(deployment: Deployment, url: str, seen: Collected) -> None:
    """Collect what the client's and the operator's commands print about all calls."""
    handles = list(seen.handles.values())
    asked: dict[str, list[Sequence[str]]] = {
        url: [
            ("calls", "list", "--json"),
            ("costs", "--json"),
            ("budgets", "show", "--json"),
            ("doctor", "--model", "sim/sim-1", "--json"),
            *(("calls", "show", handle.task_id, "--json") for handle in handles),
        ],
        deployment.services.database_url: [
            ("dead-letters", "list", "--json"),
            ("dead-letters", "summary", "--json"),
            ("dead-letters", "show", handles[-1].task_id),
            ("audit", "--json"),
            ("tenants", "list", "--json"),
        ],
    }
    for database_url, commands in asked.items():
        for command in commands:
            output = io.StringIO()
            with redirect_stdout(output), redirect_stderr(output):
                code = cli.run(command, partial(deployment.open_client, database_url=database_url))
            assert code == 0, (command, output.getvalue())
            seen.answers[" ".join(command)] = output.getvalue()


def found(secrets: Sequence[str], where: str) -> list[str]:
    """The secrets that a text holds, as they are or in base64."""
    decoded = [where, *map(base64_decoded, BASE64.findall(where))]
    return [secret for secret in secrets if any(secret in part for part in decoded)]


def base64_decoded(word: str) -> str:
    try:
        return base64.b64decode(word + "=" * (-len(word) % 4)).decode("latin-1")
    except binascii.Error:
        return ""
