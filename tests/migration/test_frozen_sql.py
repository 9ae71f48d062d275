"""What migrations create is frozen text. The newest text of each function and view is that of today."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from worker.migrate import SCRIPTS

# A function with other parameters gets a new version. Workers of the release before execute the old one.
VERSION = re.compile(r"_v(\d+)\.sql$")
LIVE = resources.files("callgate.adapters.postgres") / "sql"


@pytest.mark.parametrize("folder", ["functions", "views"])
def test_the_frozen_sql_is_the_live_sql(folder: str) -> None:
    """After a change: `python -m tests.support.freeze_sql`."""
    paths = sorted(SCRIPTS.glob(f"versions/*/{folder}/*"))
    frozen = {path.name: path.read_text("utf-8") for path in paths}  # a later migration wins
    live = {path.name: path.read_text("utf-8") for path in (LIVE / folder).iterdir()}

    # Of some the next version is several functions. What the release before executes is kept as it has to be.
    compatible = {path.name for path in SCRIPTS.glob("versions/*/compatible/*")} - live.keys()
    kept = {name for name in frozen if VERSION.search(name) and _next_version(name) in live}
    kept |= compatible & frozen.keys()
    assert sorted(set(frozen) - kept) == sorted(live)
    assert [name for name in live if frozen[name] != live[name]] == []


def _next_version(name: str) -> str:
    return VERSION.sub(lambda found: f"_v{int(found[1]) + 1}.sql", name)
