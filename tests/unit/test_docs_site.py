"""The site has every page, its links are checked, and what is written from the code is up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from callgate.settings import ClientSettings
from config.settings import WorkerOptions
from devkit.docs import contents, site
from devkit.docs.catalogue_page import TABLES
from devkit.docs.fields import rows_of
from devkit.docs.pages import DOCS, PAGES

CHECKOUT = DOCS.parent
LISTED_BY_THEIR_README = ("docs/runbook", "docs/adr")
CONTENTS = "docs/README.md"
MODELS: set[type[BaseModel]] = {model for _, _, model in TABLES} | {ClientSettings, WorkerOptions}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_code_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run `make pages`"


@pytest.mark.parametrize("model", sorted(MODELS, key=str))
def test_each_setting_and_key_says_what_it_means(model: type[BaseModel]) -> None:
    rows = list(rows_of(model))

    assert rows
    assert [row.name for row in rows if not row.meaning] == []


def test_every_page_is_in_the_navigation() -> None:
    pages = {str(page.relative_to(CHECKOUT)) for page in DOCS.rglob("*.md")} - {CONTENTS}
    listed = {at for _, entries in contents.sections() for _, at in entries}
    elsewhere = {
        page
        for page in pages - listed
        if page.startswith(LISTED_BY_THEIR_README)
        and f"]({Path(page).name})" in (CHECKOUT / page).with_name("README.md").read_text("utf-8")
    }

    assert pages - elsewhere == {at for at in listed if at.startswith("docs/")}


def page_of(folder: Path, text: str) -> Path:
    """A checkout with one page."""
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "page.md").write_text(text)
    return folder


@pytest.mark.parametrize("target", ["gone.md", "../../outside.md", "../docs"])
def test_a_link_to_nothing_is_an_error(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside.md").write_text("no part of the checkout")
    checkout = page_of(tmp_path / "checkout", f"See [it]({target}).")

    with pytest.raises(site.BrokenLink, match=re.escape(target)):
        site.copy_pages(checkout, tmp_path / "copied")


def test_what_a_page_links_to_comes_along(tmp_path: Path) -> None:
    checkout = page_of(tmp_path / "checkout", "See [the rules](../ops/rules.yaml#top).")
    (checkout / "ops").mkdir()
    (checkout / "ops" / "rules.yaml").write_text("rules: []")

    site.copy_pages(checkout, tmp_path / "copied")

    assert (tmp_path / "copied" / "ops" / "rules.yaml").read_text() == "rules: []"


def test_the_name_of_a_file_is_the_title_of_its_block(tmp_path: Path) -> None:
    """The site's Markdown takes a fence with another word for a paragraph."""
    checkout = page_of(tmp_path / "checkout", "```python file=tickets.py\npass\n```\n")

    site.copy_pages(checkout, tmp_path / "copied")

    copied = (tmp_path / "copied" / "docs" / "page.md").read_text()
    assert copied == '```python title="tickets.py"\npass\n```\n'


def test_the_site_is_built_with_every_check_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout = page_of(tmp_path, "# Page\n\nSee [it](#no-such-heading).\n")
    (checkout / site.CONFIG).write_text((CHECKOUT / site.CONFIG).read_text("utf-8"))
    monkeypatch.setattr(site, "CHECKOUT", checkout)

    assert site.main() == 1

    assert "anchor does not exist" in capsys.readouterr().err


def test_a_page_is_described_by_its_first_sentence(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- a mark -->\n\n# Title\n\n`Code` and [a link](x.md): this\nis it. This is not.\n"
    )

    assert contents.first_sentence(page) == "`Code` and a link: this is it."
