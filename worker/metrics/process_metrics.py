"""The metrics of one process, composed."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.registry import Collector

from callgate.adapters.system_clock import SystemClock
from callgate.domain.metric_ports import FiguresPort
from callgate.services.figure_reader import FigureReader
from config.settings import WorkerOptions
from worker.metrics.exposition import Exposition
from worker.metrics.meter import PrometheusMeter
from worker.status_server import Answer


@dataclass(frozen=True, slots=True)
class ProcessMetrics:
    """What counts in a process, what reads the ledger for it, and what answers `/metrics`."""

    figures: FigureReader
    exposition: Exposition

    @classmethod
    def of(cls, figures: FiguresPort, options: WorkerOptions, *others: Collector) -> ProcessMetrics:
        """Compose them. `others` are registries of libraries; see `Exposition`."""
        reader = FigureReader(
            figures,
            SystemClock(),
            interval_s=options.metrics_interval_s,
            orgs_max=options.metrics_orgs_max,
        )
        return cls(reader, Exposition(reader.newest, *others))

    @property
    def meter(self) -> PrometheusMeter:
        """Where the services of this process count."""
        return self.exposition.meter

    def answer(self) -> Answer:
        """Answer `/metrics`, from memory."""
        return self.exposition.answer()
