"""`callgate doctor`: each line that fails says why, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli import run
from callgate.client import Client
from callgate.settings import ClientSettings

LOCAL = "[providers.local]\nneeds_key = false\n"
PRICE = """[[prices]]
provider = "local"
model = "gemma"
input_usd_per_million = 0
output_usd_per_million = 0
source = "own machine"
as_of = 2026-11-23
"""
Doctor = Callable[..., dict[str, str]]


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs the doctor where neither database nor broker runs: its line for each check."""

    def examine(*arguments: str, catalogue: str) -> dict[str, str]:
        (file := tmp_path / "catalogue.toml").write_text(catalogue)
        settings = ClientSettings(
            database_url=SecretStr("postgresql+psycopg2://nobody:secret@127.0.0.1:1/none"),
            broker_url=SecretStr("redis://:secret@127.0.0.1:1/0"),
            catalogue=file,
            broker_timeout_s=0.2,
        )
        run(("doctor", *arguments), lambda: Client(settings, ledger=MemoryLedger()))
        # What to do is on a line of its own, below the finding.
        lines = capsys.readouterr().out.replace("\n     -> ", " -> ").splitlines()
        return {line.split()[1].rstrip(":"): line for line in lines}

    return examine


def test_a_provider_that_the_catalogue_lacks_is_amiss(doctor: Doctor) -> None:
    """No call of it would pass the gates, whatever the price list says."""
    lines = doctor("--model", "openai/gpt-4o-mini", catalogue=LOCAL)

    for check in ("tokenizer", "price"):
        assert lines[check].startswith(f"FAIL {check}: the catalogue has no provider 'openai'")
        assert "[providers.openai]" in lines[check]


def test_a_model_of_the_catalogue_is_looked_for_unasked(doctor: Doctor) -> None:
    """A catalogue without OpenAI is as good as any."""
    lines = doctor(catalogue=LOCAL + PRICE)

    assert lines["price"].startswith("OK   price: local/gemma: overlay")
    assert lines["tokenizer"] == "OK   tokenizer: local/gemma: utf8-bytes"


def test_a_name_that_stands_for_a_model_is_looked_for_too(doctor: Doctor) -> None:
    """A catalogue without rows of prices has it where deployments and aliases are."""
    named = '[providers.claude]\npreset = "anthropic"\nmodels = { assistant = "claude-opus-5" }\n'

    lines = doctor(catalogue=named)

    assert lines["price"].startswith("OK   price: claude/assistant: genai-prices")


def test_a_catalogue_that_names_no_model_is_not_amiss(doctor: Doctor) -> None:
    """The provider's own names are good without being written down, so nothing says that one of OpenAI's is needed."""
    lines = doctor(catalogue='[providers.groq]\npreset = "groq"\n')

    assert lines["price"] == (
        "OK   price: the catalogue names no model: give --model PROVIDER/MODEL"
    )
    assert "tokenizer" not in lines


def test_a_service_that_is_away_has_a_cause_and_a_remedy(doctor: Doctor) -> None:
    """In one line each, without a password."""
    lines = doctor(catalogue="")

    for check, variable in (("database", "DATABASE_URL"), ("broker", "BROKER_URL")):
        assert lines[check].startswith(f"FAIL {check}: ")
        assert "Connection refused" in lines[check]
        assert f" -> Check CALLGATE_{variable}, and that" in lines[check]
        assert "secret" not in lines[check]
    assert lines["broker"].startswith("FAIL broker: redis://:**@127.0.0.1:1/0 cannot be used")


def test_what_no_request_could_get_past_is_amiss(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that a worker would not start with."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/ca.pem")

    lines = doctor(catalogue="")

    assert lines["transport"].startswith(
        "FAIL transport: SSL_CERT_FILE '/nonexistent/ca.pem' cannot"
    )


def test_a_model_that_no_request_can_have_is_named(doctor: Doctor) -> None:
    """In a line, not in a traceback."""
    lines = doctor("--model", "local/a b", catalogue=LOCAL + PRICE)

    assert "FAIL price: 'a b' cannot be the name of a model" in lines["price"]
