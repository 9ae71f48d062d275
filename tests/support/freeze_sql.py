"""
Write the frozen SQL of the newest migration: `python -m tests.support.freeze_sql`.

Every live function that is new, or differs from its last frozen text, is copied to `NNNN/functions`. The lists of new
functions in `grants.sql` and `drop.sql` are those that stand between the line `-- new functions` and the bracket.
"""

from __future__ import annotations

import re
import textwrap
from importlib import resources

from worker.migrate import SCRIPTS

LIVE = resources.files("callgate.adapters.postgres") / "sql" / "functions"
LISTED = re.compile(r"(?<=-- new functions\n).*?(?=\n *\]\))", re.DOTALL)


def freeze() -> None:
    """Copy the changed functions, and list the new ones."""
    *earlier, newest = sorted(path for path in SCRIPTS.glob("versions/[0-9]*") if path.is_dir())
    frozen = {
        path.name: path.read_text("utf-8")
        for before in earlier
        for path in sorted(before.glob("functions/*"))
    }
    live = {path.name: path.read_text("utf-8") for path in LIVE.iterdir()}
    changed = {name: text for name, text in live.items() if frozen.get(name) != text}

    folder = newest / "functions"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, text in changed.items():
        (folder / name).write_text(text, "utf-8")

    new = sorted(
        f"'callgate_{name.removesuffix('.sql')}'" for name in changed.keys() - frozen.keys()
    )
    lines = textwrap.fill(
        ", ".join(new),
        width=110,
        initial_indent=" " * 12,
        subsequent_indent=" " * 12,
        break_on_hyphens=False,
    )
    for name in ("grants.sql", "drop.sql"):
        path = newest / name
        path.write_text(LISTED.sub(lambda _: lines, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    freeze()
