"""`callgate providers`, and what the doctor says about keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli import run
from callgate.client import Client
from callgate.settings import ClientSettings
from tests.support.command_line import SilentQueue
from tests.support.openai_attempts import unset_proxies

KEY = "sk-canary-0123456789"
Seen = list[tuple[str, str, str | None]]
Command = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    unset_proxies(monkeypatch)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command with a catalogue: its exit code and stdout."""

    def call(*words: str, catalogue: str) -> tuple[int, str]:
        (file := tmp_path / "catalogue.toml").write_text(catalogue)
        settings = ClientSettings(
            database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"),
            broker_url=SecretStr("redis://127.0.0.1:1/0"),
            catalogue=file,
            broker_timeout_s=0.2,
        )
        ledger = MemoryLedger()
        code = run(
            words,
            lambda: Client(settings, ledger=ledger, operations=ledger, queue=SilentQueue()),
        )
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def listener() -> Iterator[tuple[str, Seen]]:
    """A provider that answers each GET, and what it was asked. It accepts `KEY` only."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            given = self.headers.get("Authorization") or self.headers.get("api-key")
            seen.append((self.command, self.path, given))
            is_good = given is not None and given.endswith(KEY)
            self.send_response(200 if is_good else 401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()
    thread.join(5)


def doctor(command: Command, catalogue: str) -> dict[str, Any]:
    _, out = command("doctor", "--json", catalogue=catalogue)
    return {line["name"]: (line["status"], line["sentence"]) for line in json.loads(out)}


def test_the_list_shows_what_an_entry_can_do(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__FAST", KEY)
    catalogue = '[providers.fast]\npreset = "groq"\n[providers.local]\npreset = "llama_cpp"\n'

    code, out = command("providers", "list", "--json", catalogue=catalogue)
    _, table = command("providers", "list", catalogue=catalogue)

    fast, local = json.loads(out)
    assert code == 0
    assert fast == {
        "provider": "fast",
        "protocol": "openai",
        "preset": "groq",
        "verified": None,
        "endpoint": "https://api.groq.com/openai/v1",
        "json_schema": "native",
        "tools": True,
        "tiers": ["default", "flex", "priority"],
        "cannot": ["n", "top_k", "thinking_tokens", "verbosity", "prompt_cache_key"],
        "key": "there",
    }
    assert (local["key"], local["endpoint"]) == ("not needed", "http://127.0.0.1:8080/v1")
    assert "unverified" in table
    assert KEY not in out + table


def test_the_doctor_says_whether_each_key_is_accepted(
    command: Command, listener: tuple[str, Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It GETs what is declared free, with the key as the provider wants it, and sends no call."""
    url, seen = listener
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__GOOD", KEY)
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__CLOUD", KEY)
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__BAD", "sk-wrong")
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__SILENT", KEY)
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__AWAY", KEY)
    catalogue = "".join(
        f'[providers.{name}]\npreset = "{preset}"\nbase_url = "{address}"\n'
        for name, preset, address in (
            ("good", "openrouter", url),
            ("bad", "groq", url),
            ("cloud", "azure", url),
            ("none", "groq", url),
            ("away", "groq", "http://127.0.0.1:1/v1"),
        )
    )
    catalogue += f'[providers.silent]\nbase_url = "{url}"\n'

    found = doctor(command, catalogue)

    assert found["key of good"] == ("ok", "there; GET /key was answered")
    assert found["key of cloud"] == ("ok", "there; GET /models was answered")
    assert found["key of bad"][0] == "fail"
    assert "refused it (HTTP 401" in found["key of bad"][1]
    assert found["key of none"][0] == found["key of away"][0] == "warn"
    assert "could not connect" in found["key of away"][1]
    assert "not asked" in found["key of silent"][1]
    assert set(seen) == {
        ("GET", "/v1/models", "Bearer sk-wrong"),
        ("GET", "/v1/models?api-version=2024-10-21", KEY),
        ("GET", "/v1/key", f"Bearer {KEY}"),
    }
    assert len(seen) == 3
    assert "sk-" not in str(found)


def test_where_no_worker_can_run_keys_are_not_looked_for(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in an environment with the library alone."""
    monkeypatch.setattr("callgate.cli.checkout.CHECKOUT", tmp_path)
    catalogue = '[providers.fast]\npreset = "groq"\n'

    assert doctor(command, catalogue)["keys"][0] == "ok"
    _, out = command("providers", "list", "--json", catalogue=catalogue)
    assert json.loads(out)[0]["key"] == "not known here"


def test_a_key_of_no_provider_is_a_finding(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS__GRQ", KEY)

    status, sentence = doctor(command, '[providers.groq]\npreset = "groq"\n')["keys"]

    assert status == "fail"
    assert "CALLGATE_WORKER__CREDENTIALS__GRQ is no provider" in sentence


def test_a_check_that_no_worker_runs_says_so(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("providers", "check", "openai", "--organisation", "acme", "--model", "gpt-4o-mini")

    code, out = command(*words, "--timeout-s", "1", catalogue="")

    assert (code, out) == (1, "")
