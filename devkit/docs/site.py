"""
Build the site of docs/: `python -m devkit.docs.site`. A broken link or anchor is an error.

The pages are copied to `.site/pages` at the same relative paths, together with the files that they link to. So one link
works on the site, in an editor and on a code host.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
COPIES = Path(".site", "pages")
CONFIG = "zensical.toml"
LLMS = "llms.txt"
BUILD_TIMEOUT_S = 120
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE_OF_FILE = re.compile(r"^(\s*```\w+) file=(\S+)$", re.MULTILINE)
"""A block that its reader writes into a file. The site shows the name as the title of the block."""


class BrokenLink(ValueError):
    """A page links to what is not there."""


def main() -> int:
    """Copy the pages and build the site; return the exit code."""
    copy_pages(CHECKOUT, CHECKOUT / COPIES)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run(  # noqa: S603 - our own program
        [zensical, "build", "--strict", "--clean", "--config-file", CHECKOUT / CONFIG],
        cwd=CHECKOUT,
        check=False,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    if built.returncode:
        print(built.stdout + built.stderr, file=sys.stderr)  # noqa: T201 - says which link is broken
    return built.returncode


def copy_pages(checkout: Path, folder: Path) -> None:
    """
    Copy the pages of a checkout, and what they link to, into a folder that is emptied first.

    Raises:
        BrokenLink: A file is not there, or is no part of the checkout.
    """
    shutil.rmtree(folder, ignore_errors=True)
    waiting = [*checkout.glob("*.md"), *(checkout / "docs").rglob("*.md")]
    done: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in done:
            continue
        done.add(file)
        copy = folder / file.relative_to(checkout)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".md":
            shutil.copyfile(file, copy)
            continue
        text = file.read_text("utf-8")
        copy.write_text(FENCE_OF_FILE.sub(r'\1 title="\2"', text), "utf-8")
        waiting += _linked(file, text, checkout)
    if (llms := checkout / "docs" / LLMS).exists():
        shutil.copyfile(llms, folder / LLMS)


def _linked(page: Path, text: str, checkout: Path) -> Iterator[Path]:
    """The files that a page links to."""
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve()
        if not file.is_relative_to(checkout) or not file.exists():
            raise BrokenLink(f"{page.relative_to(checkout)} links to {target}, which is not there")
        if file.is_file():
            yield file
        elif not (file / "README.md").exists():
            raise BrokenLink(f"{page.relative_to(checkout)} links to a folder: {target}")


if __name__ == "__main__":
    sys.exit(main())
