"""The pages of the project name what exists: files, commands, settings, decisions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from pydantic import BaseModel
from typer.core import TyperGroup as Group
from typer.main import get_command

from callgate.adapters.catalogue_file import known_presets, load_catalogue
from callgate.cli import build_app
from callgate.settings import EMBEDDED, RENAMED
from callgate.version import __version__
from config.settings import WorkerSettings
from tests.support.own_protocol import FOLDER

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *CHECKOUT.glob("*.md"),
        *(CHECKOUT / "docs").rglob("*.md"),
        CHECKOUT / "examples" / "README.md",
    ]
)
CURRENT = [page for page in PAGES if page.name != "glossary.md"]
"""The glossary also lists old names."""
ADRS = sorted((CHECKOUT / "docs" / "adr").glob("0*.md"))
ADR_MAX_BYTES = 5_000
"""About one page."""
CONTRIBUTING_LINES_MAX = 150
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(
    r"`((?:callgate|worker|tasks|config|devkit|migrations|tests|docs|examples|requirements|packaging)/[\w./-]*)`"
)
PLACEHOLDER = re.compile(r"NAME|NNNN")
SETTING = re.compile(r"CALLGATE_[A-Z0-9_]*[A-Z0-9]")
FREE_SETTINGS = ("CALLGATE_WORKER__CREDENTIALS__",)
"""Any provider's name may follow."""
COMMAND = re.compile(r"^callgate ([^#\n]+)", re.MULTILINE)
FENCE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUOTED_COMMAND = re.compile(r"`callgate ([a-z][\w -]*)`")


def found(pattern: re.Pattern[str], pages: list[Path]) -> list[tuple[str, str]]:
    """Each match with the name of its page, once."""
    return sorted(
        {
            (str(page.relative_to(CHECKOUT)), match[1] if pattern.groups else match[0])
            for page in pages
            for match in pattern.finditer(page.read_text("utf-8"))
        }
    )


def commands_named() -> Iterator[tuple[str, str]]:
    """Commands in console blocks and in sentences, without `callgate`."""
    yield from found(QUOTED_COMMAND, CURRENT)
    for page in CURRENT:
        for block in FENCE.findall(page.read_text("utf-8")):
            yield from ((page.name, line.strip()) for line in COMMAND.findall(block))


def settings_of(cls: type[BaseModel], prefix: str = "CALLGATE_") -> Iterator[str]:
    """The variables that a settings class reads."""
    for name, field in cls.model_fields.items():
        yield prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, f"{prefix}{name.upper()}__")


@pytest.mark.parametrize(("page", "target"), found(LINK, PAGES))
def test_a_link_has_a_target(page: str, target: str) -> None:
    if "://" not in target:
        assert ((CHECKOUT / page).parent / target).exists()


@pytest.mark.parametrize(("page", "path"), found(PATH, CURRENT))
def test_a_named_path_exists(page: str, path: str) -> None:
    assert PLACEHOLDER.search(path) or (CHECKOUT / path).exists(), page


@pytest.mark.parametrize(("page", "variable"), found(SETTING, CURRENT))
def test_a_named_setting_is_one(page: str, variable: str) -> None:
    known = {*settings_of(WorkerSettings), *RENAMED, EMBEDDED}

    assert variable in known or variable.startswith(FREE_SETTINGS), page


@pytest.mark.parametrize(("page", "command"), sorted(set(commands_named())))
def test_a_named_command_is_one(page: str, command: str) -> None:
    """A group is followed by one of its commands, or by nothing."""
    words = shlex.split(command.replace("…", ""))
    at: object = get_command(build_app())

    while words and isinstance(at, Group):
        assert words[0] in at.commands, f"{page}: {words[0]}"
        at = at.commands[words.pop(0)]


@pytest.mark.parametrize("file", ADRS, ids=lambda file: file.name)
def test_a_decision_is_in_the_index(file: Path) -> None:
    """With its number, title, status and date; and it has one page."""
    text = file.read_text("utf-8")
    head = re.match(r"# (\d+)\. (.+)\n\nStatus: (\w+)\. Date: (\d{4}-\d\d-\d\d)[.;]", text)
    assert head, "its head is not: # N. Title, Status: ..., Date: ..."
    number, title, status, date = head.groups()
    index = (file.parent / "README.md").read_text("utf-8")

    assert f"| [{number}]({file.name}) | {title} | {status} | {date} | " in index
    assert int(number) == int(file.name[:4])
    assert len(text) <= ADR_MAX_BYTES


def test_each_number_of_a_decision_is_accounted_for() -> None:
    index = (CHECKOUT / "docs" / "adr" / "README.md").read_text("utf-8")
    numbers = [int(number) for number in re.findall(r"^\| \[?(\d+)", index, re.MULTILINE)]

    assert numbers == list(range(1, max(numbers) + 1))
    assert max(numbers) >= int(ADRS[-1].name[:4])


def test_the_page_for_contributors_is_short() -> None:
    lines = (CHECKOUT / "CONTRIBUTING.md").read_text("utf-8").splitlines()

    assert len(lines) <= CONTRIBUTING_LINES_MAX


def test_hooks_are_programs_of_the_checkout() -> None:
    """A hook that downloads something is slow, and needs trust."""
    config = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text("utf-8"))

    (repo,) = config["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_the_previous_release_is_a_version_and_a_commit() -> None:
    lines = (
        (CHECKOUT / "tests" / "migration" / "previous_release.txt").read_text("utf-8").splitlines()
    )

    (line,) = [line for line in lines if not line.startswith("#")]
    assert re.fullmatch(r"\d+\.\d+\.\d+ [0-9a-f]{40}", line)


def test_much_is_named() -> None:
    """Otherwise a pattern above matches nothing."""
    assert len(found(PATH, CURRENT)) > 30
    assert len(found(SETTING, CURRENT)) > 10
    assert len(set(commands_named())) > 15
    assert len(ADRS) > 15


def test_the_code_of_the_protocol_in_the_how_to_is_the_one_that_the_tests_run() -> None:
    """Each block of Python, and the presets, is in a file of the folder."""
    page = (CHECKOUT / "docs" / "howto" / "add-a-provider.md").read_text("utf-8")
    _, own = page.split("## Another protocol")
    files = [file.read_text("utf-8") for file in FOLDER.iterdir() if file.is_file()]
    blocks = re.findall(r"^   ```(?:python|toml)\n(.*?)^   ```", own, re.MULTILINE | re.DOTALL)

    assert len(blocks) == 4
    for block in blocks:
        assert any(dedent(block) in file for file in files), block


def test_the_same_protocol_in_the_how_to_is_a_valid_catalogue(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "howto" / "add-a-provider.md").read_text("utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "catalogue.toml"
    file.write_text(block)

    catalogue = load_catalogue(file)

    assert catalogue.providers["acme_ai"].output_bound_field == "max_tokens"
    assert [row.model for row in catalogue.prices] == ["acme-large"]


def test_each_preset_is_on_the_page_of_providers() -> None:
    page = (CHECKOUT / "docs" / "providers.md").read_text("utf-8")
    table = [line for line in page.splitlines() if line.startswith("| `")]

    for presets in known_presets().values():
        for name in presets.names:
            assert any(f"`{name}`" in line for line in table), name


def test_the_changelog_is_in_step_with_the_version() -> None:
    """An unreleased version ends in `.dev0`, and its changes are under "Unreleased"; a released one has its heading."""
    first, *released = re.findall(
        r"^## \[(.+?)\]", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert first == ("Unreleased" if __version__.endswith(".dev0") else __version__)
    assert __version__.removesuffix(".dev0") not in released
