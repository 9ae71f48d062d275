"""The contents of the documentation, from the navigation of the site: `docs/README.md` and `docs/llms.txt`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
CONFIG = CHECKOUT / "zensical.toml"
IMAGE_OR_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
SENTENCE = re.compile(r"(.+?[.?])(\s|$)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
BEGINNING = """\
# Documentation

By what you want to do. Each page is plain Markdown; `make docs` builds the same pages as a site.
"""

Entry = tuple[str, str]
"""A title, and the path of its page in the checkout."""


def sections() -> Iterator[tuple[str, list[Entry]]]:
    """The sections of the navigation; pages that stand alone make one together, in front."""
    pairs = [pair for item in _project()["nav"] for pair in item.items()]
    yield "Begin", [(title, at) for title, at in pairs if isinstance(at, str)]
    for title, inner in pairs:
        if not isinstance(inner, str):
            yield title, [pair for item in inner for pair in item.items()]


def readme() -> str:
    """The contents for people, with links relative to docs/."""
    return BEGINNING + "".join(_section(*section, root="../") for section in sections())


def llms() -> str:
    """The contents for language models (llmstxt.org), with links relative to the root of the site."""
    config = _project()
    head = f"# {config['site_name']}\n\n> {config['site_description']}\n"
    return head + "".join(_section(*section, root="") for section in sections())


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(CONFIG.read_text("utf-8"))["project"]
    return project


def _section(title: str, entries: list[Entry], root: str) -> str:
    lines = (
        f"- [{name}]({_path(root, at)}): {first_sentence(CHECKOUT / at)}\n" for name, at in entries
    )
    return f"\n## {title}\n\n{''.join(lines)}"


def _path(root: str, at: str) -> str:
    """Within docs/ a link does not leave the folder."""
    return at.removeprefix("docs/") if root and at.startswith("docs/") else root + at


def first_sentence(page: Path) -> str:
    """What a page says first after its title, without links."""
    if page == CHECKOUT / "README.md":
        return str(_project()["site_description"])
    text = COMMENT.sub("", page.read_text("utf-8"))
    parts = map(str.strip, text.split("\n\n"))
    paragraphs = (part for part in parts if part and not part.startswith(("#", "```", "|")))
    first = " ".join(IMAGE_OR_LINK.sub(r"\1", next(paragraphs, "")).split())
    found = SENTENCE.match(first)
    return (found[1] if found else first).rstrip(":")
