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

from callgate import Client, LLMRequest
from callgate.settings import ClientSettings
from config.settings import WorkerOptions
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.support.callgate_process import REQUEST, ROOT, RUN_TIMEOUT_S, UP_TIMEOUT_S, connects
from tests.support.waiting import until

QUICKLY_S = 20.0
"""What a command may take that finds no service: its start on a busy machine, and the services' own deadlines."""
NOBODY_LISTENS = 1
PRICE = """[[prices]]
provider = "local"
model = "gemma"
free = true
source = "own machine"
as_of = 2026-11-23
"""
SERIES = """
import json, sys
from callgate.cli import main

for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        sys.stdout.write(f"{ended.code}\\0")
        sys.stderr.write("\\0")
"""
"""Runs command lines one after the other, each as `python -m callgate` does, in the time of one start."""
Callgate = Callable[..., "subprocess.CompletedProcess[str]"]
Series = Callable[..., list[tuple[int, str, str]]]


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
def python(environ: dict[str, str], tmp_path: Path) -> Callgate:
    """Runs Python in an empty folder."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - the command under test
            [sys.executable, *arguments],
            env={**environ, **variables},
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            encoding=variables.get("PYTHONIOENCODING", "utf-8"),
            timeout=RUN_TIMEOUT_S,
            check=False,
        )

    return run


@pytest.fixture
def callgate(python: Callgate) -> Callgate:
    """Runs one command line."""
    return lambda *words, **options: python("-m", "callgate", *words, **options)


@pytest.fixture
def series(python: Callgate) -> Series:
    """Runs several command lines in one process: each one's exit code, stdout and stderr."""

    def run(*commands: tuple[str, ...], **options: str) -> list[tuple[int, str, str]]:
        ran = python("-c", SERIES, json.dumps(commands, ensure_ascii=False), **options)
        *outs, out_rest = ran.stdout.split("\0")
        *errs, err_rest = ran.stderr.split("\0")
        assert (ran.returncode, out_rest, err_rest) == (0, "", ""), ran.stderr
        said = [re.fullmatch(r"(.*?)(\d+)", out, re.DOTALL) for out in outs]
        found = [(int(o[2]), o[1], err) for o, err in zip(said, errs, strict=True) if o]
        assert len(found) == len(commands)
        return found

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


def test_json_is_all_there_is_on_stdout(series: Series, tmp_path: Path) -> None:
    """A script may hand stdout to a parser as it is."""
    # The doctor misses no key of a provider that needs none.
    (keyless := tmp_path / "keyless.toml").write_text(
        "[providers.local]\nneeds_key = false\n" + PRICE
    )
    commands = (
        ("calls", "list"),
        ("dead-letters", "list"),
        ("costs",),
        ("doctor", "--offline"),
        ("migrate",),
    )

    jsons = ((*command, "--json") for command in commands)
    for code, out, err in series(*jsons, CALLGATE_CATALOGUE=str(keyless)):
        assert (code, err) == (0, "")
        assert isinstance(json.loads(out), dict | list)


def test_a_call_lives_on_the_command_line(callgate: Callgate, series: Series) -> None:
    """Submit, look, cancel: each step sees what the last one did."""
    _, submitted = series(
        ("budgets", "set", "acme", "--daily-usd", "5"),
        ("submit", "--file", "-", "--no-wait"),
        stdin=json.dumps(REQUEST),
    )
    task_id = submitted[1].strip()
    listed = callgate("calls", "list", "--org", "acme", "--json")
    cancelled, shown = series(
        ("calls", "cancel", task_id, "--reason", "typo"),
        ("calls", "show", task_id, "--json"),
    )

    assert (submitted[0], cancelled[0]) == (0, 0)
    assert [call["task_id"] for call in json.loads(listed.stdout)] == [task_id]
    assert json.loads(shown[1])["error"] == {"code": "cancelled", "message": "typo"}


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
    series: Series, services: DevServers, variables: dict[str, str]
) -> None:
    """Commands end as they would elsewhere; JSON stays JSON, and holds every character."""
    said = "\U0001f600 Grüße ✓"
    request = {**REQUEST, "messages": [{"role": "user", "content": said}]}
    urls = {"database_url": services.database_url, "broker_url": services.broker_url}
    with Client(ClientSettings(**urls)) as client:  # type: ignore[arg-type]
        task_id = client.submit(LLMRequest(**request), force=True).task_id

    shown, as_json, wrong, checked, helped = series(
        ("calls", "show", task_id, "--bodies"),
        ("calls", "show", task_id, "--bodies", "--json"),
        ("budgets", "set", "✓", "--daily-usd", "5"),
        ("doctor", "--model", "openai/✓"),
        ("--help",),
        **variables,
    )

    assert shown[0::2] == (0, "")
    assert r"\U0001f600" in shown[1]
    assert r"\u" in checked[1]
    assert json.loads(as_json[1])["request"]["messages"][0]["content"] == said
    assert wrong[0] == 2
    assert "Traceback" not in wrong[2] + helped[2]
    assert helped[0] == 0


def test_a_typo_in_a_setting_gets_a_suggestion(callgate: Callgate) -> None:
    """A misspelt variable would silently be a default."""
    ran = callgate("audit", CALLGATE_LEDGER_TIMEOUT="3")

    assert ran.returncode == 2
    assert "did you mean CALLGATE_LEDGER_TIMEOUT_S?" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_missing_url_is_an_error_that_names_it(series: Series, environ: Any) -> None:
    """And it names `callgate up`, which is what somebody who only looks around wants."""
    del environ["CALLGATE_BROKER_URL"]

    for code, _, err in series(("audit",), ("worker",)):
        assert code == 2
        assert "CALLGATE_BROKER_URL: not set" in err
        assert "callgate up" in err


def test_a_ledger_is_not_removed_unasked(series: Series) -> None:
    """Where nobody can be asked, everything stays."""
    refused, audit = series(("migrate", "--to", "base"), ("audit",), stdin="")

    assert (refused[0], "--yes" in refused[2]) == (2, True)
    assert audit[0] == 0


def test_a_database_that_is_not_migrated_says_so(series: Series) -> None:
    """The error says which command to run, and that command is enough."""
    _, audit, doctor, migrated, again = series(
        ("migrate", "--to", "base", "--yes"), ("audit",), ("doctor",), ("migrate",), ("audit",)
    )

    assert audit[:2] == (2, "")
    assert audit[2].startswith("error: not_migrated: ")
    assert "callgate migrate" in audit[2]
    assert "FAIL schema" in doctor[1]
    assert doctor[0] == 1
    assert (migrated[0], again[0]) == (0, 0)


def test_an_unreachable_database_is_told_quickly(series: Series) -> None:
    """A command must not hang in an outage."""
    url = f"postgresql+psycopg2://callgate@127.0.0.1:{NOBODY_LISTENS}/callgate"
    started_at = time.monotonic()

    for code, _, err in series(("audit",), ("migrate",), CALLGATE_DATABASE_URL=url):
        assert code == 1
        assert err.splitlines()[-1].startswith("error: ledger_unavailable: ")
        assert "Traceback" not in err
    assert time.monotonic() - started_at < 2 * QUICKLY_S


def test_an_unreachable_broker_fails_the_doctor_and_no_submission(series: Series) -> None:
    """What the ledger accepted is accepted: a sweep publishes it when the broker is back."""
    url = f"redis://127.0.0.1:{NOBODY_LISTENS}/0"
    started_at = time.monotonic()

    doctor, submit = series(
        ("doctor", "--offline"),
        ("submit", "--file", "-", "--no-wait", "--json"),
        stdin=json.dumps(REQUEST), CALLGATE_BROKER_URL=url, CALLGATE_BROKER_TIMEOUT_S="1",
    )  # fmt: skip

    assert doctor[0] == 1
    assert "FAIL broker" in doctor[1]
    assert submit[0] == 0
    assert json.loads(submit[1])["collapsed"] is False
    assert "submission.publish_failed" in submit[2]
    assert time.monotonic() - started_at < 2 * QUICKLY_S


def test_flower_answers_under_a_path(environ: dict[str, str], tmp_path: Path) -> None:
    """With its pages, its links and its static files; nothing is left at the root. Outer slashes make no difference."""
    port, path = free_port(), "ops/flower"
    variables = {
        "CALLGATE_WORKER__FLOWER_PORT": str(port),
        "CALLGATE_WORKER__FLOWER_URL_PREFIX": f"/{path}/",
    }
    without = WorkerOptions(flower_url_prefix=path)
    assert without == WorkerOptions(flower_url_prefix=f"/{path}/")
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
