"""`/budgets/one`: one budget with its past, and a new limit: first what it would change, then the change."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from callgate.domain.bounds import ZONE_CHARS_MAX
from callgate.domain.budget_states import BudgetName, LimitPreview
from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.reports import By
from callgate.domain.sums import QUARTERS_PER_DAY, quarter_of
from callgate.services.budgets import LIMIT_MAX_USD, preview_limit, scope_of
from worker.flower import money, words
from worker.flower.fields import (
    read_name,
    read_nano_usd,
    read_optional_name,
    read_scope,
    read_usd,
    read_window,
)
from worker.flower.page import Page
from worker.flower.source import Ledger

PERIODS_SHOWN = {Window.DAY: 62, Window.MONTH: 24}


class OneBudget(Page):
    """A budget, or the form of a new one."""

    path, name, title, tab = "/budgets/one", "budget", "Budget", "budgets"

    async def get(self) -> None:
        """Show the budget; with a new limit, what that would change."""
        if not self.word("org"):
            self.redirect(self.link("/budgets"))
            return
        name, limit = self._name(), self.word("limit")
        limit_nano_usd = read_usd(limit, usd_max=LIMIT_MAX_USD) if limit else None
        now = words.now()
        since = quarter_of(now) - timedelta(days=1)

        def read(ledger: Ledger) -> dict[str, Any]:
            operations = ledger.operations
            state = operations.budget_state(name)
            preview: LimitPreview | None = None
            if limit_nano_usd is not None:
                at = state.at if state else now
                preview = preview_limit(operations, name, limit_nano_usd, at=at)
            return {
                "state": state,
                "periods": operations.budget_periods(name, limit=PERIODS_SHOWN[name.window]),
                "spent": operations.spent_by_quarter(name, since),
                "preview": preview,
            }

        found = await self.read(read)
        bars = money.quarter_bars(found["spent"], since, QUARTERS_PER_DAY + 1, self._label)
        zone = read_optional_name(self.word("timezone"), "time zone", chars_max=ZONE_CHARS_MAX)
        most = max((nano_usd for _, nano_usd in found["spent"]), default=0)
        shown = {"bars": bars, "since": since, "most_nano_usd": most, "zone_word": zone}
        self.show("one_budget.html", budget=name, money=money, **shown, **found)

    async def post(self) -> None:
        """Set the limit, if it is still the one that the form was shown."""
        name = self._name()
        limit = read_usd(self.word("limit"), usd_max=LIMIT_MAX_USD)
        seen = read_nano_usd(self.word("seen")) if self.word("seen") else None
        zone = read_optional_name(self.word("timezone"), "time zone", chars_max=ZONE_CHARS_MAX)

        def change(ledger: Ledger, by: By) -> BudgetFigures:
            return ledger.operations.change_limit(
                name, limit, seen_nano_usd=seen, timezone=zone or None, by=by
            )

        await self.change(
            change,
            then=self.link("/budgets/one", **self._address(name)),
            done=lambda b: (
                f"The limit of {b.org_id}, {money.scope_words(b.scope)}, per {b.window} is"
                f" {words.usd(b.limit_nano_usd)}; it was {words.usd(seen) if seen is not None else 'not set'}."
            ),
        )

    def _label(self, at: datetime, nano_usd: int) -> str:
        zone = words.zone_of(self.get_cookie(words.ZONE_COOKIE) or "UTC")
        return f"{words.when(at, zone)[11:16]}: {words.usd(nano_usd)}"

    @staticmethod
    def _address(name: BudgetName) -> dict[str, str]:
        return {"org": name.org_id, "scope": name.scope, "window": name.window}

    def _name(self) -> BudgetName:
        """The budget that is named: by its scope, or by a call type, as the form of a new one does."""
        call_type = read_optional_name(self.word("call_type"), "call type")
        scope = read_scope(self.word("scope")) or scope_of(call_type)
        org_id = read_name(self.word("org"), "organisation")
        return BudgetName(org_id, scope, read_window(self.word("window", Window.DAY)))
