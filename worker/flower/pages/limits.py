"""`/limits`: what providers and operators allow, what is used, who waits; and breakers, to open and close."""

from __future__ import annotations

from dataclasses import dataclass

from callgate.domain.budget_states import Affected
from callgate.domain.errors import ChangedMeanwhile
from callgate.domain.limits import measured
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import BreakerLine, By, ConcurrencyLine, LimitLine
from callgate.services import breakers as services
from callgate.services.breakers import BreakerKey
from worker.flower.fields import read_moment, read_name, read_optional_name
from worker.flower.page import Page
from worker.flower.source import Ledger

SHOWN_MAX = 200
"""Rows of each table."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the page shows of the whole ledger, or of one provider or model."""

    limits: list[LimitLine]
    breakers: list[BreakerLine]
    """Those that are open first."""
    places: list[ConcurrencyLine]
    pauses: int


class Limits(Page):
    """Limits, places, breakers."""

    path, name, title = "/limits", "limits", "Limits"

    async def get(self) -> None:
        """List them."""
        provider = read_optional_name(self.word("provider"), "provider")
        model = read_optional_name(self.word("model"), "model")

        def read(ledger: Ledger) -> Allowed:
            operations = ledger.operations
            breakers = services.list_breakers(operations, provider or None, model or None)
            limits = [
                limit
                for limit in operations.limits()
                if provider in ("", limit.provider) and model in ("", limit.model)
            ]
            return Allowed(
                limits,
                sorted(breakers, key=lambda b: (not b.is_open, -b.waiting)),
                operations.concurrency(),
                len(operations.pauses()),
            )

        found = await self.read(read)
        self.show(
            "limits.html",
            found=found,
            measured=measured,
            provider=provider,
            model=model,
            shown_max=SHOWN_MAX,
        )


class OneBreaker(Page):
    """`/limits/breaker`: one breaker, with what waits for it, to be opened or closed."""

    path, name, title, tab = "/limits/breaker", "breaker", "Breaker", "limits"

    async def get(self) -> None:
        """Show the breaker, and what opening it would concern."""
        if not self.word("provider"):
            self.redirect(self.link("/limits"))
            return
        key = self._key()

        def read(ledger: Ledger) -> tuple[BreakerLine | None, Affected]:
            line = _line(ledger, key)
            names = PauseKey(key.provider, key.model, "", key.org_id)
            return line, ledger.operations.affected(names)

        line, affected = await self.read(read)
        self.show("one_breaker.html", key=key, line=line, affected=affected)

    async def post(self) -> None:
        """Open or close it, if it is still as it was seen."""
        key = self._key()
        seen = self.word("seen_at")
        seen_at = read_moment(seen) if seen else None
        is_open = self.word("do") == "open"
        providers = self.application.providers

        def change(ledger: Ledger, by: By) -> str:
            if not seen and _line(ledger, key):
                raise ChangedMeanwhile(f"the breaker of {key} was new, and is not any more")
            if is_open:
                _, is_new = services.open_breaker(
                    ledger.operations, key, providers, seen_at=seen_at, by=by
                )
                hint = " No call has used it yet: check the name." if is_new else ""
                return f"Open: {key}. Its calls wait until it is closed by hand.{hint}"
            services.close_breaker(ledger.operations, key, seen_at=seen_at, by=by)
            return f"Closed: {key}. The calls that wait for it are sent."

        await self.change(change, then=self.link("/limits"), done=lambda said: said)

    def _key(self) -> BreakerKey:
        return BreakerKey(
            read_name(self.word("provider"), "provider"),
            read_name(self.word("model"), "model"),
            read_optional_name(self.word("credential"), "key's owner"),
            read_optional_name(self.word("org"), "organisation"),
        )


def _line(ledger: Ledger, key: BreakerKey) -> BreakerLine | None:
    lines = services.list_breakers(ledger.operations, key.provider, key.model)
    return next((b for b in lines if BreakerKey.of(b) == key), None)
