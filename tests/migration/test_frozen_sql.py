"""What a migration creates is frozen text. While it is the newest one, that is the text of today."""

from __future__ import annotations

import ast
from importlib import resources

import pytest
from alembic.script import ScriptDirectory

from worker.migrate import SCRIPTS

FIRST = "0001_create_the_ledger"
FROZEN = SCRIPTS / "versions" / "0001"
LIVE = resources.files("callgate.adapters.postgres") / "sql"
LIVE_PACKAGES = ("callgate.adapters", "callgate.services", "worker", "devkit", "tests")


def is_newest() -> bool:
    """Whether no migration has followed the first one yet."""
    return ScriptDirectory(str(SCRIPTS)).get_heads() == [FIRST]


@pytest.mark.skipif(not is_newest(), reason="a later migration may have replaced functions")
@pytest.mark.parametrize("folder", ["functions", "views"])
def test_the_frozen_sql_is_the_live_sql(folder: str) -> None:
    """After a change: `cp callgate/adapters/postgres/sql/functions/* migrations/versions/0001/functions/`."""
    frozen = {path.name: path.read_text("utf-8") for path in (FROZEN / folder).iterdir()}
    live = {path.name: path.read_text("utf-8") for path in (LIVE / folder).iterdir()}

    assert sorted(frozen) == sorted(live)
    assert [name for name in live if frozen[name] != live[name]] == []


def test_migrations_import_no_live_module() -> None:
    """A migration must do in a year what it does today. Only errors are imported: they have no behaviour."""
    imported = {
        name
        for path in SCRIPTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in _names(node)
    }

    assert [name for name in sorted(imported) if name.startswith(LIVE_PACKAGES)] == []


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
