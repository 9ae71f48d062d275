"""Write into each page of the runbook when its alert fires, from the rules: `python -m tests.support.runbook_rules`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[2]
RULES = CHECKOUT / "ops" / "prometheus" / "rules.yaml"
RUNBOOK = CHECKOUT / "docs" / "runbook"
DURATIONS = {
    "1m": "a minute", "2m": "two minutes", "5m": "five minutes", "10m": "ten minutes", "15m": "a quarter of an hour",
    "1h": "an hour",
}  # fmt: skip
WRITTEN = re.compile(r"\nIt fires [^`]*:\n\n```promql\n[^`]*\n```\n")
BEFORE = "\n## How to look\n"


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def when(alert: dict[str, Any]) -> str:
    """When an alert fires: for how long its rule must hold, and the rule."""
    held = f"has held for {DURATIONS[alert['for']]}" if "for" in alert else "holds"
    return f"\nIt fires when this {held}:\n\n```promql\n{alert['expr']}\n```\n"


def write() -> None:
    """Replace what the pages say."""
    for alert in alerts():
        page = RUNBOOK / f"{alert['alert']}.md"
        text = WRITTEN.sub("", page.read_text("utf-8"))
        page.write_text(text.replace(BEFORE, when(alert) + BEFORE, 1), "utf-8")


if __name__ == "__main__":
    write()
