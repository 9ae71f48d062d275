"""A function fits on a screen, and a file holds one concept."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
FOLDERS = ("callgate", "worker", "tasks", "config", "migrations", "devkit", "tests")
BODY_LINES_MAX = 40
"""Of a function, without its signature and its docstring."""
FILE_LINES_MAX = 400
FILES = sorted(
    file
    for folder in FOLDERS
    for ending in ("*.py", "*.sql")
    for file in (CHECKOUT / folder).rglob(ending)
)


def long_bodies(text: str) -> list[tuple[int, str, int]]:
    """Functions that are too long: line, name, lines of the body."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > BODY_LINES_MAX:
                found.append((node.lineno, node.name, lines))
    return found


def test_no_function_is_longer_than_a_screen() -> None:
    found = [
        f"{file.relative_to(CHECKOUT)}:{line}: {name} has {lines} lines"
        for file in FILES
        if file.suffix == ".py"
        for line, name, lines in long_bodies(file.read_text("utf-8"))
    ]

    assert not found, f"{len(found)} functions:\n" + "\n".join(found)


def test_no_file_is_too_long() -> None:
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in FILES}

    found = [
        f"{file.relative_to(CHECKOUT)}: {lines} lines"
        for file, lines in lengths.items()
        if lines > FILE_LINES_MAX
    ]

    assert not found, f"{len(found)} files:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("lines", "is_long"), [(BODY_LINES_MAX, False), (BODY_LINES_MAX + 1, True)]
)
@pytest.mark.parametrize(
    "head", ["def f():", "async def f(\n    a,\n):", "class C:\n  def f(self):"]
)
@pytest.mark.parametrize("docstring", ["", '    """One.\n\n    Two.\n    """\n'])
def test_only_the_body_counts(lines: int, is_long: bool, head: str, docstring: str) -> None:
    text = f"{head}\n{docstring}" + "    pass\n" * lines

    assert bool(long_bodies(text)) is is_long


def test_files_are_read() -> None:
    """Otherwise the tests above prove nothing."""
    assert len(FILES) > 300
