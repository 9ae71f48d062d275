"""Templates name static files that exist: otherwise a page is an error when somebody opens it."""

from __future__ import annotations

import re

import pytest

from worker.flower.templates import OWN, STATIC

ASSET = re.compile(r"""asset\(["']([^"']+)["']\)""")
TEMPLATES = sorted(OWN.rglob("*.html"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_every_asset_of_a_template_exists(template: object) -> None:
    text = template.read_text("utf-8")  # type: ignore[attr-defined]

    missing = [name for name in ASSET.findall(text) if not (STATIC / name).is_file()]

    assert missing == []
