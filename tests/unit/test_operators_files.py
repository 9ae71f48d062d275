"""The files under `ops/` and the pages of the runbook fit the metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from callgate.domain.breaker import KEY_REFUSED_CODES
from callgate.domain.metrics import METRICS, Metric, MetricType
from tests.support import metrics_page
from tests.support.runbook_rules import RULES, RUNBOOK, alerts, when

CHECKOUT = Path(__file__).parents[2]
RULE_TESTS = RULES.with_name("rules.test.yaml")
DASHBOARD = CHECKOUT / "ops" / "grafana" / "callgate.json"
SECTIONS = ["## What it means", "## How to look", "## What to do"]
USED = re.compile(r"\b(callgate_\w+)(?:\{([^}]*)\})?(\[\w+\])?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
BY = re.compile(r"by \(([^)]*)\)")


def queries() -> list[str]:
    """What the dashboard and the rules ask Prometheus."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return asked + [alert["expr"] for alert in alerts()]


def sampled() -> dict[str, Metric]:
    """The metrics by the names of their samples."""
    found: dict[str, Metric] = {}
    for metric in METRICS:
        endings = ("_bucket", "_sum", "_count") if metric.type is MetricType.HISTOGRAM else ("",)
        found |= {metric.name + ending: metric for ending in endings}
    return found


def uses(query: str) -> Iterator[tuple[Metric, re.Match[str]]]:
    """Each metric in a query."""
    known = sampled()
    for match in USED.finditer(query):
        assert match[1] in known, f"{match[1]} does not exist: {query}"
        yield known[match[1]], match


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_names_metrics_and_labels_that_exist(query: str) -> None:
    labels = {"le"} | {name for metric, _ in uses(query) for name in metric.labels}
    for metric, match in uses(query):
        assert set(MATCHER.findall(match[2] or "")) <= set(metric.labels)
    for names in BY.findall(query):
        assert {name.strip() for name in names.split(",")} <= labels


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_figures_of_the_ledger_are_not_summed_over_processes(query: str) -> None:
    """Each process shows the same; counters are those of one process each."""
    for metric, match in uses(query):
        before = query[: match.start()]
        if metric.is_of_ledger:
            assert re.search(r"\b(max|absent)\s*(by \([^)]*\)\s*)?\($", before), metric.name
        else:
            assert re.search(r"\b(rate|increase)\($", before), metric.name


def test_each_metric_is_in_the_dashboard() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    shown = {
        metric
        for panel in panels
        for target in panel.get("targets", [])
        for metric, _ in uses(target["expr"])
    }

    assert sorted(metric.name for metric in METRICS if metric not in shown) == []


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    pages = {page.stem for page in RUNBOOK.glob("*.md")} - {"README"}

    assert sorted(alert["alert"] for alert in alerts()) == sorted(pages)
    index = (RUNBOOK / "README.md").read_text("utf-8")
    for alert in alerts():
        name = alert["alert"]
        assert alert["annotations"]["runbook"] == f"docs/runbook/{name}.md"
        assert f"[{name}]({name}.md)" in index
        lines = (RUNBOOK / f"{name}.md").read_text("utf-8").splitlines()
        assert lines[0] == f"# {name}"
        assert [line for line in lines if line.startswith("## ")] == SECTIONS


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_a_page_says_when_its_alert_fires(alert: dict[str, Any]) -> None:
    text = (RUNBOOK / f"{alert['alert']}.md").read_text("utf-8")

    assert text.count(when(alert)) == 1, "run python -m tests.support.runbook_rules"
    assert text.count("```promql") == 1


def test_each_alert_is_tested_to_fire_and_to_clear() -> None:
    """`make test-system` runs these tests with promtool."""
    tests = {test["name"]: test for test in yaml.safe_load(RULE_TESTS.read_text("utf-8"))["tests"]}

    assert list(tests) == [alert["alert"] for alert in alerts()]
    for name, test in tests.items():
        fires, clears = test["alert_rule_test"]
        assert fires["alertname"] == clears["alertname"] == name
        assert (len(fires["exp_alerts"]), clears["exp_alerts"]) == (1, [])


def test_the_alerts_about_keys_know_each_code_of_a_refused_key() -> None:
    codes = "|".join(sorted(KEY_REFUSED_CODES))
    by_name = {alert["alert"]: alert["expr"] for alert in alerts()}

    assert f'reason=~"{codes}"' in by_name["CallgateKeyRefused"]
    for name in ("CallgateProviderFailing", "CallgateProviderFailingForOne"):
        assert f'reason!~"operator|{codes}"' in by_name[name]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels) > 30
    assert len(cells) == len(set(cells))


def test_the_page_of_metrics_is_written_from_the_table() -> None:
    written = metrics_page.PAGE.read_text("utf-8")

    assert written == metrics_page.page(), "run python -m tests.support.metrics_page"


def test_metrics_are_named_by_the_conventions() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("callgate_")
        assert metric.name.endswith("_total") == (metric.type is MetricType.COUNTER)
        assert metric.type is not MetricType.HISTOGRAM or metric.name.endswith("_seconds")
        assert metric.meaning.endswith(".")
        assert "|" not in metric.meaning
