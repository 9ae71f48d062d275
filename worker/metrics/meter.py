"""
The counters and histograms of this process: the `Meter` of workers, and what prometheus-client collects from it.

The classes `Counter` and `Histogram` of prometheus-client take three times as long for each value, and would add a
series `_created` to each.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from callgate.domain.metrics import METRICS, OTHER, SERIES_MAX, Metric, MetricType

Labels = tuple[str, ...]
Family = CounterMetricFamily | HistogramMetricFamily


class PrometheusMeter(Collector):
    """Counts in memory. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        of_process = [metric for metric in METRICS if not metric.is_of_ledger]
        self._counts: dict[str, dict[Labels, float]] = {
            metric.name: {(label,): 0.0 for label in metric.first} for metric in of_process
        }
        """Of counters by name and labels."""
        self._seconds: dict[str, dict[Labels, list[float]]] = {
            metric.name: {} for metric in of_process
        }
        """Of histograms: the values in each bucket, those above the last one, and the sum."""

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter; see `Meter.count`."""
        with self._lock:
            known = self._counts[metric.name]
            if labels not in known:
                labels = _bounded(labels, known)
                known.setdefault(labels, 0.0)
            known[labels] += amount

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add one value to a histogram; see `Meter.observe`."""
        with self._lock:
            known = self._seconds[metric.name]
            values = known.get(labels)
            if values is None:
                empty = [0.0] * (len(metric.buckets) + 2)
                values = known.setdefault(_bounded(labels, known), empty)
            values[bisect_left(metric.buckets, seconds)] += 1
            values[-1] += seconds

    def collect(self) -> Iterator[Family]:
        """Yield all that was counted."""
        with self._lock:
            counts = {name: dict(known) for name, known in self._counts.items()}
            seconds = {
                name: {labels: list(values) for labels, values in known.items()}
                for name, known in self._seconds.items()
            }
        for metric in METRICS:
            if metric.type is MetricType.COUNTER:
                yield _counter(metric, counts[metric.name])
            elif metric.type is MetricType.HISTOGRAM:
                yield _histogram(metric, seconds[metric.name])


def _bounded(labels: Labels, known: dict[Labels, float] | dict[Labels, list[float]]) -> Labels:
    """The labels of a new series: after `SERIES_MAX` of a metric they are all `OTHER`."""
    return labels if len(known) < SERIES_MAX else (OTHER,) * len(labels)


def _counter(metric: Metric, counts: dict[Labels, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in counts.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, seconds: dict[Labels, list[float]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
    for labels, (*values, total) in seconds.items():
        family.add_metric(labels, list(zip(bounds, accumulate(values), strict=True)), total)
    return family
