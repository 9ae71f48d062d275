"""Where templates come from: callgate's own, and Flower's with a few changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flower.urls import settings as flower_settings
from tornado.template import Loader, Template

OWN = Path(__file__).with_name("templates")
STATIC = Path(__file__).with_name("static") / "callgate"
NAVIGATION = '{% include "callgate/navigation.html" %}'
HEAD = """<link href="{{ static_url('css/flower.css') }}" rel="stylesheet">"""
SCRIPT = """<script src="{{ static_url('js/flower.js') }}"></script>"""
TASKS = '<nav class="task-state-filters"'
SECTION = '<section class="detail-card task-details-card"'
CARDS = '<section class="metric-grid"'
NO_PAGE = '<header class="page-header"><h1 class="cg-title">There is no such page</h1></header>'
TABS_OF_WORKER = '<div class="worker-tabs">'


def _note(name: str) -> str:
    return f'{{% include "callgate/{name}.html" %}}'


CHANGES: dict[str, list[tuple[str, str]]] = {
    "navbar.html": [
        ('<ul class="app-nav navbar-nav">', f'<ul class="app-nav navbar-nav">{NAVIGATION}'),
        ("navbar-expand-lg", "navbar-expand-xl"),
        ("<span>Flower</span>", "<span>callgate</span>"),
    ],
    "base.html": [
        (HEAD, HEAD + '{% include "callgate/head.html" %}'),
        (SCRIPT, SCRIPT + '{% include "callgate/flower_script.html" %}'),
    ],
    "404.html": [
        ('<div class="col-12">', f'<div class="page-section">{NO_PAGE}'),
        ("Error, page not found", "The address is mistyped, or the page was of another version."),
    ],
    "tasks.html": [(TASKS, _note("note_tasks") + TASKS)],
    "task.html": [
        (SECTION, _note("note_task") + SECTION),
        ("<dt>Status</dt>", "<dt>{% if handler.call_state %}Message{% else %}Status{% end %}</dt>"),
    ],
    "workers.html": [(CARDS, _note("note_workers") + CARDS)],
    "worker.html": [(TABS_OF_WORKER, _note("note_worker") + TABS_OF_WORKER)],
}
"""Texts of Flower's own templates, and what replaces them. A test fails if Flower has changed such a text."""


class Templates(Loader):
    """Loads callgate's templates by `callgate/name.html`, and Flower's by their own names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(flower_settings["template_path"], **options)

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Take names as they are: our templates also use Flower's."""
        return name

    def _create_template(self, name: str) -> Template:
        folder = OWN if name.startswith("callgate/") else Path(self.root)
        text = (folder / name).read_text("utf-8")
        for old, new in CHANGES.get(name, []):
            text = text.replace(old, new, 1)
        return Template(text, name=name, loader=self)
