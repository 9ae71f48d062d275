"""Keys, passwords, prompts and answers appear nowhere except where they belong.

Real calls that end in every way run through a worker that logs at DEBUG, under least-privilege logins, with Flower
watching. Then everything that is visible is searched, also base64-decoded.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from callgate import LLMRequest
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.settings import ClientSettings
from config.settings import WorkerOptions, WorkerSettings
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from devkit.simulator.simulator import Match, Rule, Simulator
from tests.support.canaries import (
    ANSWER,
    BASE64,
    BODIES,
    BROKER_PASSWORD,
    ENDS,
    FLOWER_PASSWORD,
    KEY,
    KEYS,
    PROMPT,
    TEXTS,
    TIMEOUT_S,
    Collected,
    Monitor,
    base64_decoded,
    collect_command_output,
    collect_flower_pages,
    command_lines,
    found,
    prepare,
    run,
    stored_columns,
    stored_in_broker,
)
from tests.support.deployment import Deployment, until
from tests.support.flower_pages import status_of
from tests.support.logins import a_login


@pytest.fixture(scope="module")
def seen(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collected]:
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
        verbose = [sys.executable, "-m", "tests.support.verbose_worker"]
        worker = deployment.start(
            "worker", verbose, CALLGATE_DATABASE_URL=urls[WORKER], OPENAI_LOG="debug"
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
            TIMEOUT_S,
            flower.output,
        )
        client = stack.enter_context(deployment.open_client(database_url=urls[CLIENT]))
        seen = Collected(passwords=tuple(str(make_url(url).password) for url in urls.values()))
        with Monitor(services.broker_url) as monitor:
            run(client, seen)
            collect_flower_pages(port, seen)
        seen.broker = "\n".join([*monitor.commands, *stored_in_broker(services.broker_url)])
        seen.logs = {"worker": worker.output(), "flower": flower.output()}
        seen.command_lines = command_lines(worker, flower)
        seen.rows = dict(stored_columns(services.database_url))
        collect_command_output(deployment, urls[CLIENT], seen)
        deployment.assert_audit_is_clean()
        yield seen


def test_the_search_finds_secrets() -> None:
    """Otherwise the other tests could not fail."""
    hidden = base64.b64encode(f"[[], {{}}, {PROMPT}]".encode()).decode()

    assert found(TEXTS, f'LPUSH q {{"body": "{hidden}"}}') == [PROMPT]
    assert found(KEYS, f"Bearer {KEY}") == [KEY]


def test_the_calls_end_as_scripted(seen: Collected) -> None:
    """One succeeds and the others fail, so there is something to leak."""
    states = {name: handle.state.value for name, handle in seen.handles.items()}

    assert states == {name: "succeeded" if name == "success" else "dead" for name in ENDS}
    assert PROMPT in seen.rows["llm_call.request"]
    assert ANSWER in seen.rows["ai_call_log.reply"]


def test_messages_and_events_hold_ids_only(seen: Collected) -> None:
    """All commands to the broker while the calls ran, and everything it still holds."""
    assert "callgate.log_call" in seen.broker
    assert (
        "task-succeeded" in "".join(map(base64_decoded, BASE64.findall(seen.broker))) + seen.broker
    )
    assert found([*KEYS, *TEXTS, *seen.passwords, FLOWER_PASSWORD], seen.broker) == []


def test_everything_on_the_wire_is_json(seen: Collected) -> None:
    """Every content type that was named on the broker."""
    assert set(re.findall(r"content-type\W+([\w./-]+)", seen.broker)) == {"application/json"}


def test_no_log_holds_a_secret(seen: Collected) -> None:
    """Neither a worker's at DEBUG, nor Flower's."""
    for output in seen.logs.values():
        assert (
            found([*KEYS, *TEXTS, *seen.passwords, BROKER_PASSWORD, FLOWER_PASSWORD], output) == []
        )
    assert "callgate_settle_v2" in seen.logs["worker"]


def test_no_row_except_bodies_holds_a_secret(seen: Collected) -> None:
    """Bodies hold texts. Keys and passwords are in no row."""
    for name, values in seen.rows.items():
        assert found([*KEYS, *seen.passwords, BROKER_PASSWORD], values) == [], name
        if tuple(name.split(".")) not in BODIES:
            assert found(TEXTS, values) == [], name


def test_flower_shows_no_secret(seen: Collected) -> None:
    """Pages and API, including the settings on the worker's page."""
    assert any(page.startswith("/worker/") for page in seen.pages)
    for path, body in seen.pages.items():
        secrets = [*KEYS, *TEXTS, *seen.passwords, BROKER_PASSWORD, FLOWER_PASSWORD]
        assert found(secrets, body) == [], path


def test_the_command_line_prints_no_secret(seen: Collected) -> None:
    """Lists and single calls, dead ones with their reasons, and the command lines in `ps`."""
    passwords = [*KEYS, *seen.passwords, BROKER_PASSWORD, FLOWER_PASSWORD]
    secrets = [*passwords, *TEXTS]
    for asked, answer in seen.answers.items():
        # An operator who decides about a dead letter sees its texts.
        hidden = passwords if asked.startswith("dead-letters show") else secrets
        assert found(hidden, answer) == [], asked
    assert len(json.loads(seen.answers["dead-letters list --json"])["calls"]) == 9
    assert found(secrets, seen.command_lines) == []


def test_no_repr_and_no_error_holds_a_secret(seen: Collected) -> None:
    """Settings, clients, requests, calls, and errors of calls that failed."""
    secrets = [*KEYS, *TEXTS, *seen.passwords, BROKER_PASSWORD]
    assert len([name for name in seen.reprs if name.startswith("error of")]) == 9
    for name, words in seen.reprs.items():
        assert found(secrets, words) == [], name


def test_an_invalid_request_is_not_quoted() -> None:
    """The error names the field."""
    with pytest.raises(ValidationError) as refused:
        LLMRequest.model_validate(
            {"messages": [{"role": PROMPT, "content": [PROMPT]}], "stop": PROMPT}
        )

    assert "messages.0.content" in str(refused.value)
    assert found(TEXTS, f"{refused.value} {refused.value!r}") == []


def test_settings_hide_secrets() -> None:
    """In repr, as text, and in validation errors."""
    urls: dict[str, Any] = {
        "database_url": f"postgresql://u:{KEY}@h/d",
        "broker_url": f"redis://:{BROKER_PASSWORD}@h",
    }
    worker = WorkerOptions(credentials={"openai": KEY}, flower_basic_auth=f"a:{FLOWER_PASSWORD}")  # type: ignore[dict-item, arg-type]
    settings = WorkerSettings(**urls, worker=worker)

    shown = f"{settings!r} {settings} {ClientSettings(**urls)!r} {settings.model_dump_json()}"

    assert found([*KEYS, BROKER_PASSWORD, FLOWER_PASSWORD], shown) == []
