"""`callgate completion`: shells complete commands and options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.callgate_process import ROOT
from tests.support.command_line import Shell

ASK = """
eval "$1"
COMP_WORDS=(callgate budgets s)
COMP_CWORD=2
_callgate_completion "$2"
echo "${COMPREPLY[@]}"
"""


def test_bash_completes_words_with_the_script(shell: Shell, tmp_path: Path) -> None:
    """A real bash reads it, and asks the program for words."""
    script = shell("completion", "bash")[1]
    (program := tmp_path / "callgate").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m callgate "$@"\n'
    )
    program.chmod(0o700)

    ran = subprocess.run(  # noqa: S603 - the script under test
        ["/bin/bash", "-u", "-c", ASK, "bash", script, str(program)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert (ran.stdout.split(), ran.stderr) == (["set", "show"], "")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: Shell, name: str) -> None:
    code, script, err = shell("completion", name)

    assert (code, err) == (0, "")
    assert f"_CALLGATE_COMPLETE=complete_{name}" in script


def test_another_shell_is_wrong_usage(shell: Shell) -> None:
    assert shell("completion", "csh")[0] == 2
