"""The plugin of pytest: it costs nothing where it is not used, and its fixtures work in a project of somebody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from callgate import testing

OWN = {"callgate", "callgate.version", "callgate.testing", "callgate.testing.plugin"}
MODULES_OF_CALLGATE = """
import sys
import pytest

def test_nothing_is_loaded():
    own = {name for name in sys.modules if name.split(".")[0] in ("callgate", "devkit", "worker")}
    heavy = {"pydantic", "celery", "kombu", "sqlalchemy", "structlog", "redis"} & set(sys.modules)
    assert (own, heavy) == (%r, set())
"""
PIPELINE = """
from callgate import Client, LLMRequest

def capital(country: str) -> str:
    with Client.from_env() as client:
        return client.submit(
            LLMRequest(org_id="acme", call_type="geography", provider="openai", model="gpt-4o-mini",
                       messages=[{"role": "user", "content": country}], max_output_tokens=20)
        ).get().text
"""
TESTS = """
import pytest
from pipeline import capital

def test_it_asks(callgate_client):
    callgate_client.script.reply("Paris", match="France")
    assert capital("France") == "Paris"
    assert len(callgate_client.sent) == 1

def test_a_swallowed_request_fails_at_the_end(callgate_client):
    with pytest.raises(AssertionError):
        capital("Spain")
"""


def run_pytest(folder: Path) -> tuple[int, str]:
    """Run the tests of a folder as its owner would."""
    others = ("cacheprovider", "randomly", "celery", "vcr", "recording", "hypothesispytest")
    without = [word for name in others for word in ("-p", f"no:{name}")]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "pytest", "-q", *without],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_loading_it_loads_nothing_else(tmp_path: Path) -> None:
    """Every run of pytest in an environment with callgate loads it, through its entry point."""
    (tmp_path / "test_it.py").write_text(MODULES_OF_CALLGATE % OWN)

    code, said = run_pytest(tmp_path)

    assert code == 0, said


def test_a_pipeline_is_tested_without_servers(tmp_path: Path) -> None:
    """`Client.from_env()` of the code under test is the client of the fixture."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "test_it.py").write_text(TESTS)

    code, said = run_pytest(tmp_path)

    assert code == 1
    assert "2 passed, 1 error" in said
    assert "1 requests had no rule" in said


def test_every_name_of_the_kit_can_be_imported() -> None:
    assert all(getattr(testing, name) for name in testing.__all__)
