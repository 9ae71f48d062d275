"""`/pauses`: what is paused or frozen; pause, freeze and resume, with what that concerns shown first."""

from __future__ import annotations

from dataclasses import asdict

from callgate.domain.budget_states import Affected
from callgate.domain.errors import InvalidRequest
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import By
from callgate.services import pauses as services
from callgate.services.pauses import Paused
from worker.flower.fields import read_moment, read_optional_name
from worker.flower.page import Page
from worker.flower.source import Ledger

NAMES = (
    ("provider", "Provider"),
    ("model", "Model"),
    ("call_type", "Call type"),
    ("org", "Organisation"),
)


class Pauses(Page):
    """The pauses, and the form of a new one."""

    path, name, title, tab = "/pauses", "pauses", "Pauses", "limits"

    async def get(self) -> None:
        """List pauses; with names, what a pause of them would concern."""
        key = self._key() if self.word("look") else None

        def read(ledger: Ledger) -> tuple[list[Pause], Affected | None]:
            found = ledger.operations.affected(key) if key else None
            return ledger.operations.pauses(), found

        pauses, affected = await self.read(read)
        given = {name: self.word(name) for name, _ in NAMES}
        self.show(
            "pauses.html",
            pauses=pauses,
            key=key,
            affected=affected,
            names=NAMES,
            given=given,
            fields_of=fields_of,
        )

    async def post(self) -> None:
        """Begin or end a pause."""
        key = self._key()
        then = self.link("/pauses")
        if self.word("back") == "budgets":
            then = self.link("/budgets", org=key.org_id)
        if self.word("do") == "end":
            seen_at = read_moment(self.word("seen_at"))
            await self.change(
                lambda ledger, by: services.resume(ledger.operations, key, seen_at=seen_at, by=by),
                then=then,
                done=lambda others: _ended(key, others),
            )
            return
        providers = self.application.providers

        def begin(ledger: Ledger, by: By) -> Paused:
            return services.pause(ledger.operations, key, providers, is_new=True, by=by)

        await self.change(begin, then=then, done=_begun)

    def _key(self) -> PauseKey:
        """
        Which calls the form or the address means.

        Raises:
            InvalidRequest: All of them, without a tick that says so; or a freeze of more than an organisation.
        """
        provider, model, call_type, org_id = (
            read_optional_name(self.word(name), label.lower()) for name, label in NAMES
        )
        is_freeze = self.word("freeze") == "1"
        try:
            key = PauseKey(provider, model, call_type, org_id, is_freeze)
        except ValueError as exc:
            raise InvalidRequest(str(exc)) from None
        if key == PauseKey() and self.word("all") != "1":
            raise InvalidRequest("name what to pause, or tick all calls")
        return key


def fields_of(key: PauseKey) -> dict[str, str]:
    """A key as the hidden fields of a form."""
    names = asdict(key)
    fields = {name: names["org_id" if name == "org" else name] for name, _ in NAMES}
    is_all = key == PauseKey()
    return {**fields, "freeze": "1" if key.is_freeze else "", "all": "1" if is_all else ""}


def _begun(paused: Paused) -> str:
    key = paused.pause.key
    words = [f"{'Frozen' if key.is_freeze else 'Paused'}: {key}. What is in flight ends as usual."]
    words += [f"No call has used {name} yet: check the name." for name in paused.unused]
    return " ".join(words)


def _ended(key: PauseKey, others: list[Pause]) -> str:
    words = [f"{'Unfrozen' if key.is_freeze else 'Resumed'}: {key}."]
    words += [
        f"Still {'frozen' if p.key.is_freeze else 'paused'}: {p.key} ({p.by.reason})."
        for p in others
    ]
    return " ".join(words)
