"""The alert rules are valid, and each fires and clears on a made-up series: `promtool` of Debian's `prometheus`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "ops" / "prometheus"


def promtool(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """Run promtool in the folder of the rules."""
    return subprocess.run(  # noqa: S603 - a program of Debian
        ["/usr/bin/promtool", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_rules_and_the_scrape_configuration_are_valid() -> None:
    done = promtool("check", "config", "scrape.yaml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SUCCESS: \d+ rules found", done.stdout + done.stderr)


def test_each_alert_fires_and_clears() -> None:
    done = promtool("test", "rules", "rules.test.yaml")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("max(callgate_queue_age_seconds) > 300", "max(callgate_queue_age_seconds) > 30000"),
        ('drift_usd{figure="held"}) > 0', 'drift_usd{figure="held"}) >= 0'),
        ('drift_usd{figure="spent"}', 'drift_usd{figure="held"}'),
        ('max(callgate_budgets{used_percent="100"})', 'sum(callgate_budgets{used_percent="100"})'),
    ],
)
def test_a_rule_that_never_fires_never_clears_or_sums_is_noticed(
    tmp_path: Path, before: str, after: str
) -> None:
    for name in ("rules.yaml", "rules.test.yaml"):
        (tmp_path / name).write_text((FOLDER / name).read_text("utf-8"), "utf-8")
    rules = tmp_path / "rules.yaml"
    text = rules.read_text("utf-8")
    assert before in text
    rules.write_text(text.replace(before, after), "utf-8")

    done = promtool("test", "rules", "rules.test.yaml", folder=tmp_path)

    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr
