"""What pages say: values, templates of Flower that are changed, and what the overview calls wrong."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flower.urls import settings as flower_settings

from callgate.domain import metrics
from callgate.domain.alert_rules import AlertRules
from callgate.domain.calls import WaitReason
from callgate.domain.metric_ports import Figure
from callgate.domain.metrics import Metric
from callgate.domain.overview import Glance, ProviderHealth
from worker.flower import words
from worker.flower.glance import MEANINGS, Numbers, wrong_of
from worker.flower.pages import PAGES, TABS
from worker.flower.templates import CHANGES, OWN, Templates

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
CALM = Glance(NOW, 0, 0, 0, 0, 0, 0)
ALIVE = Figure(metrics.LEASES.name, ("live",), 2)


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "$0.00"),
        (1_234_567_890_123, "$1,234.57"),
        (500_000_000, "$0.50"),
        (8_000_000, "$0.008"),
        (1, "$0.000000001"),
        (-7_660_000_000, "-$7.66"),
        (-123_456, "-$0.00012"),
        (123_456, "$0.00012"),
        (8_190_000, "$0.0082"),
        (9_999_000, "$0.01"),
        (12, "$0.000000012"),
        (None, "—"),
    ],
)
def test_amounts(nano_usd: int | None, text: str) -> None:
    assert words.usd(nano_usd) == text


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [(8_110_000, "$0.0082"), (1_000_000, "$0.001"), (12_340_000_001, "$12.35"), (0, "$0.00")],
)
def test_what_can_be_spent_is_never_shown_too_small(nano_usd: int, text: str) -> None:
    assert words.at_most_usd(nano_usd) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "—"),
        (0.0404, "40 ms"),
        (-1, "0 ms"),
        (9.96, "10.0 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (90_061, "1 d 1 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


def test_time_zones_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with a chart asks for each of its bars; a listing reads some hundred folders and files."""
    words.zone_of("UTC")
    monkeypatch.setattr("worker.flower.words.available_timezones", lambda: pytest.fail("again"))

    assert words.zone_of("Asia/Tokyo").key == "Asia/Tokyo"
    assert words.zone_of("no/where").key == "UTC"


def test_times_are_in_the_zone_of_the_page() -> None:
    """A zone that does not exist is UTC: the name comes from a cookie."""
    assert words.when(NOW, words.zone_of("Asia/Tokyo")) == "2026-11-30 21:00:00"
    assert words.when(NOW, words.zone_of("../../etc/passwd")) == "2026-11-30 12:00:00"
    assert words.ago(NOW - timedelta(minutes=5), NOW) == "5 min ago"


def test_a_count_that_was_cut_says_so() -> None:
    assert words.number(10_000, 10_000) == "10,000+"
    assert words.number(9_999, 10_000) == "9,999"


def test_flowers_templates_have_what_is_replaced() -> None:
    """Once each: a new version of Flower that changes such a text must be noticed."""
    folder = Path(flower_settings["template_path"])
    for name, changes in CHANGES.items():
        text = (folder / name).read_text("utf-8")
        assert [old for old, _ in changes if text.count(old) != 1] == []


@pytest.mark.parametrize(
    "name", [*CHANGES, *(f"callgate/{path.name}" for path in sorted(OWN.glob("callgate/*.html")))]
)
def test_every_template_can_be_read_and_escapes_what_it_shows(name: str) -> None:
    loader = Templates()
    loader.load(name)

    if name.startswith("callgate/"):
        text = (OWN / name).read_text("utf-8")
        assert "{% raw" not in text
        assert "{% autoescape" not in text
        assert " style=" not in text


def test_pages_have_names_of_their_own_and_tabs_that_exist() -> None:
    names = [page.name for page in PAGES]

    assert len(set(names)) == len(names)
    tabs = {name for name, _ in TABS}
    assert {page.tab or page.name for page in PAGES} <= tabs


def test_every_reason_to_wait_has_a_meaning() -> None:
    assert set(MEANINGS) == set(WaitReason)


def texts(
    *figures: Figure, glance: Glance = CALM, health: ProviderHealth | None = None
) -> list[str]:
    """What is wrong."""
    numbers = Numbers.of((ALIVE, *figures))
    return [w.text for w in wrong_of(numbers, glance, [health] if health else [], AlertRules())]


def test_nothing_is_wrong_with_a_calm_ledger() -> None:
    """Calls wait and run, and a queue is young."""
    assert (
        texts(
            Figure(metrics.CALLS.name, ("waiting", "retry"), 7),
            Figure(metrics.QUEUE_AGE.name, (), 2.0),
            Figure(metrics.BUDGETS.name, ("50",), 3),
            Figure(metrics.WORKER_VARIANTS.name, ("version",), 1),
            health=ProviderHealth("p", "m", 100, 95, 5, 0, 1, 2),
        )
        == []
    )


@pytest.mark.parametrize(
    ("metric", "labels", "value", "text"),
    [
        (metrics.LEASES, ("expired",), 1, "Silent workers: 1"),
        (metrics.WORKER_VARIANTS, ("version",), 2, "differ in: version"),
        (metrics.QUEUE_AGE, (), 301, "queued for 5 min 1 s"),
        (metrics.LINKS_OVERDUE, (), 3_600, "delivered for 1 h"),
        (metrics.SETTLE_LAG, (), 3_600, "settled for 1 h"),
        (metrics.PAUSES, ("freeze",), 1, "Frozen organisations: 1"),
        (
            metrics.OPEN_BREAKERS,
            ("p", "m", "provider", "all", "operator"),
            1,
            "breaker of p/m is open: operator",
        ),
        (metrics.BLOCKED_KEYS, ("p", "m"), 1, "p/m blocks keys"),
        (metrics.BUDGETS, ("100",), 2, "used up: 2"),
        (metrics.BUDGETS, ("80",), 2, "80 % are used: 2"),
        (metrics.UNKNOWN_BILLS, (), 20_000, "nobody knows: 20,000+"),
        (metrics.DRIFT, ("held",), 0.5, "differ from their rows by $0.50"),
    ],
)
def test_what_is_wrong_is_said(
    metric: Metric, labels: tuple[str, ...], value: float, text: str
) -> None:
    (told,) = texts(Figure(metric.name, labels, value))

    assert text in told


def test_dead_calls_and_failing_providers_are_said() -> None:
    bad = ProviderHealth("p", "m", 20, 10, 10, 0, 1, 2)
    few = ProviderHealth("p", "m", 9, 0, 9, 0, 1, 2)

    assert texts(glance=Glance(NOW, 3, 0, 0, 0, 0, 0)) == ["Calls that died in the last hour: 3."]
    assert texts(health=bad) == ["Of the newest attempts at p/m 50 % succeeded."]
    assert texts(health=few) == []


def test_the_worst_comes_first() -> None:
    """A pause is the operator's own wish; a fleet without workers is not."""
    pause = Figure(metrics.PAUSES.name, ("pause",), 1)
    numbers = Numbers.of([pause])
    wrong = wrong_of(numbers, CALM, [], AlertRules())

    assert [w.is_severe for w in wrong] == [True, False]
    assert wrong[0].text == "No worker is alive."


def test_a_zone_is_found_without_a_look_at_all_files() -> None:
    """A page asks for it once for each of its parts, of which there may be a hundred."""
    words.zone_of("UTC")
    began = time.process_time()
    for _ in range(200):
        words.zone_of("Asia/Tokyo")
    assert time.process_time() - began < 0.2
