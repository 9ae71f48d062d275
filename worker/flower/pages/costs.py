"""`/costs`: who spent how much on what, and what of it brought nothing; as a table, a chart and a file."""

from __future__ import annotations

from datetime import datetime, timedelta

from callgate.domain.cost_series import Grid, Series, grid_of, series_of
from callgate.domain.sums import BY_DAY, CostLine
from worker.flower import words
from worker.flower.cost_view import TITLES, CostView, csv_lines, share_of, total_of, view_of
from worker.flower.periods import NAMES, OWN
from worker.flower.source import Ledger
from worker.flower.zoned import ZonedPage

SHOWN_MAX = 200
FILE_LINES_MAX = 20_000
LINES_AT_ONCE = 500
"""Lines of a file that are sent together."""


class CostPage(ZonedPage):
    """What the pages of costs have in common: which sums an address means."""

    tab = "costs"

    def view(self) -> CostView:
        """Read the address."""
        return view_of(self.word, self.span("today"))


class Costs(CostPage):
    """The sums of a time, the largest first."""

    path, name, title = "/costs", "costs", "Costs"

    async def get(self) -> None:
        """Show the sums."""
        view = self.view()
        lines, total = await self.read(lambda ledger: _bounded(ledger, view))
        self.show(
            "costs.html",
            view=view,
            lines=lines[:SHOWN_MAX],
            is_cut=len(lines) > SHOWN_MAX,
            total=total,
            titles=TITLES,
            periods=NAMES,
            own=OWN,
            shown_max=SHOWN_MAX,
            share_of=share_of,
            to=lambda other: self.link("/costs", **other.words),
            at_period=lambda name: view.of(self.named_span(name)),
        )


class CostSeriesData(CostPage):
    """What the chart of a view shows, as JSON."""

    path, name, title = "/costs/(?:series)", "cost_series", "Costs over time"

    async def get(self) -> None:
        """Answer with the steps, and a line for each of the largest values."""
        view = self.view()
        since, until = view.which.period
        if since is None or until is None:
            raise AssertionError("a view of costs has both times")
        until = min(until, words.now() + timedelta(hours=1))
        grid = grid_of(since, until, self.zone.key)
        starts = list(grid.starts(since, until))
        points = await self.read(
            lambda ledger: ledger.cost_series.cost_series(view.which, grid, view.charted)
        )
        self.set_header("Cache-Control", "no-store")
        self.write(_chart(grid, starts, series_of(points, starts)))


class CostFile(CostPage):
    """The lines of a view as CSV."""

    path, name, title = r"/costs(?:\.csv)", "cost_file", "Costs as CSV"

    async def get(self) -> None:
        """Send the file, a part at a time."""
        view = self.view()
        by = (BY_DAY, *view.by) if self.word("days") else view.by
        lines = await self.read(
            lambda ledger: ledger.cost_series.cost_lines(view.which, by, limit=FILE_LINES_MAX + 1)
        )
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Disposition", f'attachment; filename="{_file_name(view)}"')
        if len(lines) > FILE_LINES_MAX:
            self.set_header("X-Callgate-Cut", f"{FILE_LINES_MAX} lines, the largest amounts")
        for number, row in enumerate(csv_lines(lines[:FILE_LINES_MAX], by)):
            self.write(row)
            if number % LINES_AT_ONCE == 0:
                await self.flush()


def _bounded(ledger: Ledger, view: CostView) -> tuple[list[CostLine], CostLine]:
    """The lines of a view, and all of it together."""
    ask = ledger.cost_series.cost_lines
    lines = ask(view.which, view.by, limit=SHOWN_MAX + 1)
    return lines, total_of(lines if len(lines) <= SHOWN_MAX else ask(view.which, (), limit=1))


def _file_name(view: CostView) -> str:
    return f"costs-{view.span.first}-{view.span.last}.csv"


def _chart(grid: Grid, starts: list[datetime], lines: list[Series]) -> dict[str, object]:
    return {
        "step": grid.step.value,
        "zone": grid.zone,
        "starts": [int(at.timestamp()) for at in starts],
        "lines": [
            {"name": line.name, "usd": [value / words.NANO for value in line.values]}
            for line in lines
        ],
    }
