"""
Runs the blocks of a page of docs/, in order, as its reader would: in one shell, in one folder, against `callgate up`.

A block of Python or of the console is executed unless the line above it is a mark:

    <!-- not run: WHY -->        nobody can run it here
    <!-- run by: tests/... -->   that test runs it

A mark in the first line of the page that begins with `all` (`<!-- all run by: tests/... -->`) is for all its blocks.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<words>[^\n]*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"<!-- (?P<all>all )?(?P<what>not run|run by): (?P<why>[^\n]+?) -->\n\s*\Z")
FIRST_LINE = re.compile(r"\A<!-- all (?P<what>not run|run by): (?P<why>[^\n]+?) -->\n")
FILE = re.compile(r"\bfile=(\S+)")
EXECUTABLE = ("python", "console")
RUN_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class PageBlock:
    """A block, and who runs it."""

    language: str
    file: str | None
    text: str
    not_run: str = ""
    """Why nobody runs it."""
    run_by: str = ""
    """Which test runs it."""

    @property
    def is_run_here(self) -> bool:
        """True if `script` has it."""
        return not (self.not_run or self.run_by)


def page_blocks(page: Path) -> Iterator[PageBlock]:
    """The blocks of a page, in order, also those of lists."""
    text = page.read_text("utf-8")
    head = FIRST_LINE.match(text)
    for fence in FENCE.finditer(text):
        mark = MARK.search(text[: fence.start()]) or head
        why = {mark["what"]: mark["why"]} if mark else {}
        file = FILE.search(fence["words"])
        lines = fence["text"].split("\n" + fence["indent"])
        yield PageBlock(
            fence["language"],
            file[1] if file else None,
            "\n".join(lines).removeprefix(fence["indent"]),
            why.get("not run", ""),
            why.get("run by", ""),
        )


def runs_here(page: Path) -> bool:
    """True if a block of Python or of the console has no mark."""
    return any(block.is_run_here and block.language in EXECUTABLE for block in page_blocks(page))


def script(page: Path) -> str:
    """A program for bash: it writes the files of the page and runs its other blocks."""
    lines = ["set -euo pipefail"]
    for number, block in enumerate(page_blocks(page)):
        if block.file:
            lines.append(
                f"cat > {shlex.quote(block.file)} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK"
            )
        elif block.is_run_here and block.language == "python":
            lines.append(f"cat > block_{number}.py <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
            lines.append(f"echo '+ block {number}'\npython block_{number}.py")
        elif block.is_run_here and block.language == "console":
            lines.append(f"echo '+ block {number}'\n{block.text}")
    return "\n".join(lines) + "\n"


def run_page(page: Path, folder: Path, environ: Mapping[str, str]) -> str:
    """Run a page in a folder; return what it printed. It fails where a command fails."""
    programs = Path(sys.executable).parent
    done = subprocess.run(  # noqa: S603 - the page is ours
        ["/bin/bash", "-c", script(page)],
        cwd=folder,
        env={**os.environ, **environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
    assert done.returncode == 0, f"{page.name} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
