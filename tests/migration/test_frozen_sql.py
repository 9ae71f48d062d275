"""What migrations create is frozen text. The newest text of each function and view is that of today."""

from __future__ import annotations

from importlib import resources

import pytest

from worker.migrate import SCRIPTS

LIVE = resources.files("callgate.adapters.postgres") / "sql"


@pytest.mark.parametrize("folder", ["functions", "views"])
def test_the_frozen_sql_is_the_live_sql(folder: str) -> None:
    """After a change: copy the changed file of `sql/functions` to `migrations/versions/NNNN/functions`."""
    paths = sorted(SCRIPTS.glob(f"versions/*/{folder}/*"))
    frozen = {path.name: path.read_text("utf-8") for path in paths}  # a later migration wins
    live = {path.name: path.read_text("utf-8") for path in (LIVE / folder).iterdir()}

    assert sorted(frozen) == sorted(live)
    assert [name for name in live if frozen[name] != live[name]] == []
