"""`/budgets`: how full budgets are, when they will be spent, and what waits; of one organisation also its freeze."""

from __future__ import annotations

from dataclasses import dataclass

from callgate.domain.budget_states import Affected, BudgetName, BudgetState
from callgate.domain.pauses import Pause, PauseKey
from worker.flower import money
from worker.flower.fields import read_optional_name, read_scope, read_window
from worker.flower.page import Page
from worker.flower.source import Ledger

SHOWN_MAX = 50


@dataclass(frozen=True, slots=True)
class Organisation:
    """One organisation beside its budgets."""

    org_id: str
    affected: Affected
    freeze: Pause | None
    pauses: list[Pause]
    """Other pauses that cover calls of it."""


class Budgets(Page):
    """The fullest budgets, all by name, or those of one organisation."""

    path, name, title = "/budgets", "budgets", "Budgets"

    async def get(self) -> None:
        """List budgets."""
        org_id = read_optional_name(self.word("org"), "organisation")
        after = self._after()
        is_by_name = bool(org_id or after or self.word("order") == "name")

        def read(ledger: Ledger) -> tuple[list[BudgetState], list[Pause], Organisation | None]:
            operations = ledger.operations
            if is_by_name:
                states = operations.budgets_by_name(
                    org_id=org_id or None, after=after, limit=SHOWN_MAX + 1
                )
            else:
                states = operations.fullest_budgets(limit=SHOWN_MAX)
            pauses = operations.pauses()
            return states, pauses, _organisation(ledger, pauses, org_id) if org_id else None

        states, pauses, organisation = await self.read(read)
        shown = states[:SHOWN_MAX]
        last = BudgetName.of(shown[-1].figures) if len(states) > SHOWN_MAX else None
        self.show(
            "budgets.html",
            states=shown,
            money=money,
            organisation=organisation,
            frozen_orgs={p.key.org_id for p in pauses if p.key.is_freeze},
            is_by_name=is_by_name,
            org_id=org_id,
            older=last and self.link("/budgets", **self._next(org_id, last)),
            newest=after and self.link("/budgets", org=org_id, order="name"),
        )

    def _after(self) -> BudgetName | None:
        names = [self.word(f"after_{part}") for part in ("org", "scope", "window")]
        if not all(names):
            return None
        return BudgetName(names[0], read_scope(names[1]), read_window(names[2]))

    @staticmethod
    def _next(org_id: str, last: BudgetName) -> dict[str, str]:
        return {
            "org": org_id,
            "order": "name",
            "after_org": last.org_id,
            "after_scope": last.scope,
            "after_window": last.window,
        }


def _organisation(ledger: Ledger, pauses: list[Pause], org_id: str) -> Organisation:
    freeze = PauseKey(org_id=org_id, is_freeze=True)
    pauses = [p for p in pauses if p.key.org_id in ("", org_id)]
    return Organisation(
        org_id,
        ledger.operations.affected(PauseKey(org_id=org_id)),
        next((p for p in pauses if p.key == freeze), None),
        [p for p in pauses if p.key != freeze],
    )
