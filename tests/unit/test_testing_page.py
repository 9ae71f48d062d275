"""The page about tests is right: its blocks are executed."""

from __future__ import annotations

from pathlib import Path

from tests.support.page_blocks import blocks_of, run_python, write_files
from tests.unit.test_testing_plugin import run_pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_pipeline_of_the_page_passes_its_tests(tmp_path: Path) -> None:
    """As its reader would run it: the files of the page in an empty folder."""
    files = write_files(PAGE, tmp_path)

    code, said = run_pytest(tmp_path)

    assert files == ["tickets.py", "test_tickets.py", "conftest.py"]
    assert code == 0, said
    assert "4 passed" in said


def test_the_other_blocks_run() -> None:
    names = run_python(PAGE)

    assert callable(names["test_on_real_servers"])


def test_no_block_is_left_out() -> None:
    assert {block.language for block in blocks_of(PAGE)} == {"python", "console"}


def test_the_tests_of_the_example_pass() -> None:
    code, said = run_pytest(PAGE.parents[1] / "examples")

    assert code == 0, said
    assert "3 passed" in said
