"""The real `python -m callgate`, as people and scripts run it, against real services."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from sqlalchemy import Engine

from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.support.callgate_process import REQUEST, ROOT, RUN_TIMEOUT_S, UP_TIMEOUT_S, connects
from tests.support.waiting import until

QUICKLY_S = 20.0
"""What a command may take that finds no service: its start on a busy machine, and the services' own deadlines."""
NOBODY_LISTENS = 1
Callgate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environ(services: DevServers, postgres_engine: Engine) -> dict[str, str]:
    """The environment of a client of migrated, empty services."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CALLGATE_DATABASE_URL": services.database_url,
        "CALLGATE_BROKER_URL": services.broker_url,
    }


@pytest.fixture
def callgate(environ: dict[str, str], tmp_path: Path) -> Callgate:
    """Runs one command line in an empty folder."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - the command under test
            [sys.executable, "-m", "callgate", *arguments],
            env={**environ, **variables},
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            encoding=variables.get("PYTHONIOENCODING", "utf-8"),
            timeout=RUN_TIMEOUT_S,
            check=False,
        )

    return run


def test_help_and_version_need_no_settings(tmp_path: Path) -> None:
    """They work anywhere, and import neither Celery nor SQLAlchemy."""
    environ = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", "-m", "callgate"]

    for option in ("--help", "--version"):
        ran = subprocess.run(  # noqa: S603 - the command under test
            [*command, option], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
        )  # fmt: skip

        imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
        assert "callgate" in ran.stdout
        assert imported.isdisjoint({"celery", "sqlalchemy", "kombu", "redis", "flower"})


@pytest.mark.parametrize(
    "command",
    [
        ("calls", "list"),
        ("dead-letters", "redrive", "--yes"),
        ("costs",),
        ("doctor",),
        ("migrate",),
    ],
)
def test_json_is_all_there_is_on_stdout(callgate: Callgate, command: tuple[str, ...]) -> None:
    """A script may hand stdout to a parser as it is."""
    ran = callgate(*command, "--json")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert isinstance(json.loads(ran.stdout), dict | list)


def test_a_call_lives_on_the_command_line(callgate: Callgate) -> None:
    """Submit, look, cancel: each step sees what the last one did."""
    callgate("budgets", "set", "acme", "--daily-usd", "5")

    submitted = callgate("submit", "--file", "-", "--no-wait", stdin=json.dumps(REQUEST))
    task_id = submitted.stdout.strip()
    listed = json.loads(callgate("calls", "list", "--org", "acme", "--json").stdout)
    cancelled = callgate("calls", "cancel", task_id, "--reason", "typo")
    shown = json.loads(callgate("calls", "show", task_id, "--json").stdout)

    assert submitted.returncode == 0
    assert [call["task_id"] for call in listed] == [task_id]
    assert cancelled.returncode == 0
    assert shown["error"] == {"code": "cancelled", "message": "typo"}


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "cp1252", "C"],
)
def test_what_the_terminal_cannot_show_is_escaped(
    callgate: Callgate, variables: dict[str, str]
) -> None:
    """Commands end as they would elsewhere; JSON stays JSON, and holds every character."""
    said = "\U0001f600 Grüße ✓"
    request = {**REQUEST, "messages": [{"role": "user", "content": said}]}
    submitted = callgate("submit", "--file", "-", "--no-wait", stdin=json.dumps(request))
    task_id = submitted.stdout.strip()

    shown = callgate("calls", "show", task_id, "--bodies", **variables)
    as_json = callgate("calls", "show", task_id, "--bodies", "--json", **variables)
    wrong = callgate("budgets", "set", "✓", "--daily-usd", "5", **variables)
    checked = callgate("doctor", "--model", "openai/✓", **variables)
    helped = callgate("--help", **variables)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"\U0001f600" in shown.stdout
    assert r"\u" in checked.stdout
    assert json.loads(as_json.stdout)["request"]["messages"][0]["content"] == said
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr + helped.stderr
    assert helped.returncode == 0


def test_a_typo_in_a_setting_gets_a_suggestion(callgate: Callgate) -> None:
    """A misspelt variable would silently be a default."""
    ran = callgate("audit", CALLGATE_LEDGER_TIMEOUT="3")

    assert ran.returncode == 2
    assert "did you mean CALLGATE_LEDGER_TIMEOUT_S?" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_missing_url_is_an_error_that_names_it(callgate: Callgate, environ: Any) -> None:
    """And it names `callgate up`, which is what somebody who only looks around wants."""
    del environ["CALLGATE_BROKER_URL"]

    for command in (("audit",), ("worker",)):
        ran = callgate(*command)

        assert ran.returncode == 2
        assert "CALLGATE_BROKER_URL: not set" in ran.stderr
        assert "callgate up" in ran.stderr


def test_a_ledger_is_not_removed_unasked(callgate: Callgate) -> None:
    """Where nobody can be asked, everything stays."""
    refused = callgate("migrate", "--to", "base", stdin="")

    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert callgate("audit").returncode == 0


def test_a_database_that_is_not_migrated_says_so(callgate: Callgate) -> None:
    """The error says which command to run, and that command is enough."""
    callgate("migrate", "--to", "base", "--yes")

    audit = callgate("audit")
    doctor = callgate("doctor")
    migrated = callgate("migrate")

    assert (audit.returncode, audit.stdout) == (2, "")
    assert audit.stderr.startswith("error: not_migrated: ")
    assert "callgate migrate" in audit.stderr
    assert "FAIL schema" in doctor.stdout
    assert doctor.returncode == 1
    assert migrated.returncode == 0
    assert callgate("audit").returncode == 0


def test_an_unreachable_database_is_told_quickly(callgate: Callgate) -> None:
    """A command must not hang in an outage."""
    url = f"postgresql+psycopg2://callgate@127.0.0.1:{NOBODY_LISTENS}/callgate"
    started_at = time.monotonic()

    for command in (("audit",), ("migrate",)):
        ran = callgate(*command, CALLGATE_DATABASE_URL=url)

        assert ran.returncode == 1
        assert ran.stderr.splitlines()[-1].startswith("error: ledger_unavailable: ")
        assert "Traceback" not in ran.stderr
    assert time.monotonic() - started_at < 2 * QUICKLY_S


def test_an_unreachable_broker_fails_the_doctor_and_no_submission(callgate: Callgate) -> None:
    """What the ledger accepted is accepted: a sweep publishes it when the broker is back."""
    url = f"redis://127.0.0.1:{NOBODY_LISTENS}/0"
    started_at = time.monotonic()

    doctor = callgate("doctor", CALLGATE_BROKER_URL=url)
    submit = callgate(
        "submit", "--file", "-", "--no-wait", "--json",
        stdin=json.dumps(REQUEST), CALLGATE_BROKER_URL=url,
    )  # fmt: skip

    assert doctor.returncode == 1
    assert "FAIL broker" in doctor.stdout
    assert submit.returncode == 0
    assert json.loads(submit.stdout)["collapsed"] is False
    assert "submission.publish_failed" in submit.stderr
    assert time.monotonic() - started_at < 2 * QUICKLY_S


@pytest.mark.parametrize("prefix", ["ops/flower", "/flower/"])
def test_flower_answers_under_a_path(environ: dict[str, str], tmp_path: Path, prefix: str) -> None:
    """With its pages, its links and its static files; nothing is left at the root."""
    port, path = free_port(), prefix.strip("/")
    variables = {
        "CALLGATE_WORKER__FLOWER_PORT": str(port),
        "CALLGATE_WORKER__FLOWER_URL_PREFIX": prefix,
    }
    flower = subprocess.Popen(
        [sys.executable, "-m", "callgate", "flower"],
        env={**environ, **variables}, cwd=tmp_path, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def status(url: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{port}{url}", timeout=10) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except HTTPError as exc:
            return exc.code, ""

    try:
        until(
            lambda: connects(f"http://127.0.0.1:{port}"),
            UP_TIMEOUT_S,
            lambda: "waited too long for Flower",
        )
        code, page = status(f"/{path}/")
        static = re.findall(r'(?:src|href)="([^"]*/static/[^"]*)"', page)
        assert code == 200
        assert static
        assert all(url.startswith(f"/{path}/static/") for url in static)
        assert {status(url)[0] for url in static} == {200}
        assert status(f"/{path}/healthcheck")[0] == 200
        assert status("/static/css/flower.css")[0] == status("/workers")[0] == 404
    finally:
        flower.terminate()
        flower.wait(20)


def test_flower_is_not_shown_to_others_without_a_password(callgate: Callgate) -> None:
    """It can run any task."""
    ran = callgate("flower", CALLGATE_WORKER__FLOWER_ADDRESS="0.0.0.0")  # noqa: S104 - refused

    assert ran.returncode == 2
    assert "CALLGATE_WORKER__FLOWER_BASIC_AUTH" in ran.stderr


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """`callgate ... | head` must not print a traceback."""
    with subprocess.Popen(
        [sys.executable, "-m", "callgate", "doctor", "--json"],
        env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()

        assert command.stderr.read() == ""
