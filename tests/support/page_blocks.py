"""The code blocks of a page, as its reader would use them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"\bfile=(\S+)")


@dataclass(frozen=True, slots=True)
class Block:
    """A block: its language, what follows it, and its text."""

    language: str
    file: str | None
    """The name after `file=`: the reader writes the block into it."""
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(language, name[1] if (name := FILE.search(words)) else None, text)
        for language, words, text in FENCE.findall(page.read_text("utf-8"))
    ]


def write_files(page: Path, folder: Path) -> list[str]:
    """Write the blocks that are files; return their names."""
    files = [block for block in blocks_of(page) if block.file]
    for block in files:
        (folder / str(block.file)).write_text(block.text)
    return [str(block.file) for block in files]


def run_python(page: Path) -> dict[str, Any]:
    """Execute the blocks of Python that are no files, one after the other in one module; return its names."""
    names: dict[str, Any] = {"__name__": page.stem}
    for number, block in enumerate(blocks_of(page), start=1):
        if block.language == "python" and not block.file:
            exec(compile(block.text, f"{page.name}, block {number}", "exec"), names)  # noqa: S102
    return names
