"""The wheel alone, in an environment without the checkout: what users of the library install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import callgate
from tests.support.callgate_process import ROOT, RUN_TIMEOUT_S

INSTALL_TIMEOUT_S = 300.0
LOCK = ROOT / "requirements" / "production.txt"
UV = (sys.executable, "-m", "uv")
CHECKOUT_ONLY = {"worker", "migrate", "flower", "up", "demo"}
"""Commands of the worker and of the developers."""

pytestmark = pytest.mark.timeout(2 * INSTALL_TIMEOUT_S)


def ran(*command: str | Path, cwd: Path, timeout_s: float = RUN_TIMEOUT_S) -> str:
    """Run a command outside the checkout; return its output."""
    environ = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "UV_CACHE_DIR", "SSL_CERT_FILE")
        if name in os.environ
    }
    done = subprocess.run(  # noqa: S603 - the commands are ours
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel and the locked dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    bin_ = folder / "venv" / "bin"
    ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("callgate-*.whl")
    ran(*UV, "venv", "--python", sys.executable, folder / "venv", cwd=folder)
    install = (*UV, "pip", "install", "--python", bin_ / "python", "--no-deps")
    ran(
        *(*install, "--require-hashes", "-r", LOCK),
        cwd=folder,
        timeout_s=INSTALL_TIMEOUT_S,
    )
    ran(*install, wheel, cwd=folder)
    return bin_


def test_the_wheel_has_the_version_of_the_checkout(installed: Path) -> None:
    assert ran(installed / "callgate", "--version", cwd=installed) == (
        f"callgate {callgate.__version__}\n"
    )


def test_the_wheel_has_the_commands_of_the_library_only(installed: Path) -> None:
    """Commands of the worker and of developers are added by a checkout."""
    out = ran(installed / "callgate", "--help", cwd=installed)

    commands = {line.strip("│ ").split(" ")[0] for line in out.splitlines()}
    assert {"submit", "calls", "budgets", "dead-letters", "doctor"} <= commands
    assert commands.isdisjoint(CHECKOUT_ONLY)


def test_a_program_can_import_the_library(installed: Path) -> None:
    """From the wheel, not from the checkout."""
    script = (
        "import callgate\n"
        "from callgate import BudgetExhausted, Client, LLMRequest\n"
        "print(callgate.__file__)"
    )

    file = ran(installed / "python", "-c", script, cwd=installed)

    assert Path(file.strip()).is_relative_to(installed.parent)


def test_the_lock_satisfies_what_the_wheel_requires(installed: Path) -> None:
    """The lock was installed without asking the wheel."""
    ran(*UV, "pip", "check", "--python", installed / "python", cwd=installed)
