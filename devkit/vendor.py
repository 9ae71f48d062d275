"""
Copy the scripts of others into the checkout: `make vendor`, after a change of a version here.

It needs npm and its registry. What is copied is committed, so that nothing else needs them. Each file must have the
digest that stands here: npm's own `integrity` of the package.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PAGES = CHECKOUT / "worker/flower/static/callgate/vendor"
TESTS = CHECKOUT / "tests/support/vendor"


@dataclass(frozen=True, slots=True)
class Package:
    """A package of npm, and what is taken of it."""

    name: str
    version: str
    licence: str
    integrity: str
    """SHA-512 of the package, as npm writes it."""
    files: tuple[str, ...]
    folder: Path
    purpose: str


PACKAGES = (
    Package(
        "htmx.org",
        "2.0.11",
        "0BSD",
        "sha512-Thx/WtpeOQqSrqBCw/A1cwGJGg4UrVa3+sW0GmrM3p4gJgO89ecH4qtbnyzDDWFvBTqjnIMCgELTNt636dtamA==",
        ("dist/htmx.min.js",),
        PAGES,
        "refreshes open pages",
    ),
    Package(
        "uplot",
        "1.6.32",
        "MIT",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        ("dist/uPlot.iife.min.js", "dist/uPlot.min.css"),
        PAGES,
        "draws charts",
    ),
    Package(
        "axe-core",
        "4.14.1",
        "MPL-2.0",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        ("axe.min.js",),
        TESTS,
        "checks accessibility, in tests only",
    ),
)


def main() -> None:
    """Fetch every package, and write the list of each folder."""
    for package in PACKAGES:
        _fetch(package)
    for folder in {package.folder for package in PACKAGES}:
        (folder / "README.md").write_text(_list(folder), "utf-8")


def _fetch(package: Package) -> None:
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(  # noqa: S603 - names from this file
            ["npm", "pack", "--silent", f"{package.name}@{package.version}"],  # noqa: S607
            cwd=place,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(place).iterdir()
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != package.integrity:
            raise SystemExit(f"{package.name} {package.version} is sha512-{digest}")
        package.folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as inside:
            for path in (*package.files, "LICENSE"):
                file = inside.extractfile(f"package/{path}")
                assert file is not None, path
                name = f"LICENSE.{package.name}" if path == "LICENSE" else Path(path).name
                (package.folder / name).write_bytes(file.read())


def _list(folder: Path) -> str:
    rows = [
        f"| {p.name} | {p.version} | {p.licence} | {', '.join(Path(f).name for f in p.files)} | {p.purpose} |"
        for p in PACKAGES
        if p.folder == folder
    ]
    return "\n".join(
        (
            "# Scripts of others",
            "",
            "Copied from npm by `make vendor`; `devkit/vendor.py` has their digests. Do not edit them.",
            "",
            "| package | version | licence | files | what it does |",
            "|---|---|---|---|---|",
            *rows,
            "",
        )
    )


if __name__ == "__main__":
    main()
