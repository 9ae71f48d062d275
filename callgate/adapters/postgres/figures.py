"""The figures of the ledger in Postgres: `FiguresPort`."""

from __future__ import annotations

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.metric_ports import Figure, LedgerFigures
from callgate.domain.metrics import BUDGETS_MAX, GROUPS_MAX, ROWS_MAX

READ = """SELECT * FROM callgate_read_figures_v1(
    %(interval_s)s, %(orgs_max)s, %(rows_max)s, %(budgets_max)s, %(groups_max)s)"""

CURRENT = """SELECT * FROM callgate_current_figures_v1(
    %(orgs_max)s, %(rows_max)s, %(budgets_max)s, %(groups_max)s)"""


class PostgresFigures:
    """`FiguresPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def read_figures(self, *, interval_s: float, orgs_max: int) -> LedgerFigures:
        """Return the figures; see `FiguresPort.read_figures`."""
        rows = self._session.answers(READ, {"interval_s": interval_s, **_bounds(orgs_max)})
        if not rows:
            raise LedgerUnavailable("another process reads the first figures of the ledger")
        (row,) = rows
        figures = tuple(Figure(name, tuple(labels), value) for name, labels, value in row.figures)
        return LedgerFigures(row.read_at, row.age_s, figures)

    def current_figures(self, *, orgs_max: int) -> tuple[Figure, ...]:
        """Return those of this moment; see `FiguresPort.current_figures`."""
        rows = self._session.answers(CURRENT, _bounds(orgs_max))
        return tuple(Figure(row.name, tuple(row.labels), row.value) for row in rows)


def _bounds(orgs_max: int) -> dict[str, int]:
    return {
        "orgs_max": orgs_max,
        "rows_max": ROWS_MAX,
        "budgets_max": BUDGETS_MAX,
        "groups_max": GROUPS_MAX,
    }
