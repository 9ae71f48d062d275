"""Which pages of docs/ are written from the code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from devkit.docs import catalogue_page, command_line_page, contents, errors_page, settings_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES: Mapping[str, Callable[[], str]] = {
    "reference/settings.md": settings_page.page,
    "reference/catalogue.md": catalogue_page.page,
    "reference/command-line.md": command_line_page.page,
    "reference/errors.md": errors_page.page,
    "README.md": contents.readme,
    "llms.txt": contents.llms,
}
"""The page by its path in docs/. The contents come last: they quote the others."""


def write() -> None:
    """Write all of them."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")
