"""What `/metrics` answers: the counters of this process, and the figures of the ledger from memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from callgate.domain.metric_ports import LedgerFigures
from callgate.domain.metrics import METRICS, READ_AT
from worker.metrics.meter import PrometheusMeter
from worker.status_server import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class LedgerCollector(Collector):
    """The figures of the ledger, as prometheus-client asks for them."""

    def __init__(self, newest: Callable[[], LedgerFigures | None]) -> None:
        self._newest = newest

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each figure. Without any, nothing: 0 would be a claim."""
        found = self._newest()
        if found is None:
            return
        families = {
            metric.name: GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            for metric in METRICS
            if metric.is_of_ledger
        }
        families[READ_AT.name].add_metric([], found.read_at.timestamp())
        for figure in found.figures:
            # A process of another version may have read figures that this one does not know.
            if family := families.get(figure.name):
                family.add_metric(figure.labels, figure.value)
        yield from families.values()

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: the registry must not read figures to learn their names."""
        return []


class Exposition:
    """The metrics of one process: a meter to count with, and the route that shows everything."""

    def __init__(self, newest: Callable[[], LedgerFigures | None], *others: Collector) -> None:
        """
        Prepare the registry of this process.

        Args:
            newest: The figures of the ledger in memory; see `FigureReader.newest`.
            others: Registries of libraries whose metrics are shown too.
        """
        self._registry = CollectorRegistry()
        self._others = others
        self.meter = PrometheusMeter()
        self._registry.register(self.meter)
        if not others:
            # The registry that libraries use has one too.
            ProcessCollector(registry=self._registry)
        self._registry.register(LedgerCollector(newest))

    def answer(self) -> Answer:
        """Answer `/metrics`, from memory."""
        bodies = [generate_latest(each) for each in (self._registry, *self._others)]
        return Answer(b"".join(bodies), CONTENT_TYPE)
