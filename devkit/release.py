"""
Build what a release publishes: both distributions, and the notes from the changelog.

`python -m devkit.release` writes them to `dist/`, which it empties first. Nothing is published.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from callgate.version import __version__

CHECKOUT = Path(__file__).parents[1]
DIST = CHECKOUT / "dist"
BUILDS = ((CHECKOUT, ("sdist", "wheel")), (CHECKOUT / "packaging" / "worker", ("wheel",)))
"""The worker has no sdist: it reads folders outside its own (docs/adr/0030)."""
BUILD_TIMEOUT_S = 300


def main() -> None:
    """Build everything, and print what there is."""
    notes = notes_of((CHECKOUT / "CHANGELOG.md").read_text("utf-8"), __version__)
    shutil.rmtree(DIST, ignore_errors=True)
    for project, kinds in BUILDS:
        for kind in kinds:
            subprocess.run(  # noqa: S603 - our own interpreter
                [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", DIST],
                cwd=project,
                check=True,
                timeout=BUILD_TIMEOUT_S,
            )
    (DIST / "notes.md").write_text(notes, "utf-8")
    print(DIST / "notes.md")  # noqa: T201 - the answer


def notes_of(changelog: str, version: str) -> str:
    """
    The section of a version; of a version that is not released yet, the section "Unreleased".

    Raises:
        ValueError: There is no such section.
    """
    name = "Unreleased" if version.endswith(".dev0") else version
    heading = re.compile(rf"^## \[{re.escape(name)}\].*\n", re.MULTILINE)
    found = heading.search(changelog)
    if found is None:
        raise ValueError(f"the changelog has no section [{name}]")
    return changelog[found.end() :].partition("\n## [")[0].strip() + "\n"


if __name__ == "__main__":
    main()
