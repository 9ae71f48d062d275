"""Give dead letters another generation: today's gates, today's price, today's budget, the same submitters."""

from __future__ import annotations

from collections.abc import Sequence

from callgate.domain.calls import Bodies, CallKey, CallState
from callgate.domain.errors import InvalidRequest
from callgate.domain.ledger import Submitted
from callgate.domain.ports import LedgerPort
from callgate.services.results import request_of
from callgate.services.submit import SubmitService


class RedriveService:
    """Redrives dead calls."""

    def __init__(self, ledger: LedgerPort, submit: SubmitService) -> None:
        self._ledger = ledger
        self._submit = submit

    def redrive(self, keys: Sequence[CallKey]) -> tuple[list[Submitted], dict[CallKey, str]]:
        """
        Queue a next generation of each dead call; links of the dead one are told of the new end.

        Returns:
            What was submitted (publish what is CREATED), and why each of the others was not.
        """
        views = self._ledger.read(keys, Bodies.REQUEST)
        refused: dict[CallKey, str] = {}
        prepared = []
        for key, view in zip(keys, views, strict=True):
            if view is None or view.state is not CallState.DEAD:
                refused[key] = f"not dead but {view.state if view else 'unknown'}"
            elif view.request is None:
                refused[key] = "its request was purged"
            else:
                try:
                    request = request_of(view)
                    prepared.append(self._submit.prepare(request, force=True, inherit_links=True))
                except (InvalidRequest, ValueError) as exc:
                    refused[key] = str(exc)
        answers = self._submit.store(prepared)
        self._submit.check(prepared, answers)
        return answers, refused
