"""The redrives of one worker process: how they are composed, and the loop that carries them out."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.postgres.redrives import PostgresRedrives
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import Unavailable
from callgate.domain.ports import LedgerPort, QueuePort
from callgate.domain.redrive_ports import RedrivesPort
from callgate.services.redrive_runner import AcceptedSchemas, RedriveRunner
from callgate.services.submit import SubmitService

log = structlog.get_logger(__name__)

PAUSE_S = 1.0
"""Between two looks of one worker for a redrive that needs one."""
FORGET_INTERVAL_S = 600.0


@dataclass(frozen=True, slots=True)
class RedriveLoop:
    """Takes redrives and does the next step of each. No error ends it: a step that fails is done again."""

    runner: RedriveRunner

    @classmethod
    def of(
        cls,
        ledger: LedgerPort,
        queue: QueuePort,
        catalogue: Catalogue,
        session: PostgresSession,
        redrives: RedrivesPort | None = None,
    ) -> RedriveLoop:
        """Compose; `redrives` replaces those of the session."""
        submits = SubmitService(
            ledger=ledger,
            queue=queue,
            estimator=TokenEstimator(catalogue),
            costs=CostCalculator(catalogue),
            validator=AcceptedSchemas(),
            catalogue=catalogue,
            now=lambda: datetime.now(UTC),
        )
        redrives = redrives or PostgresRedrives(session)
        return cls(RedriveRunner(ledger=ledger, redrives=redrives, submits=submits))

    async def run(self) -> None:
        """Carry out redrives until this is cancelled."""
        forget_at = time.monotonic() + _jittered(FORGET_INTERVAL_S)
        while True:
            has_worked = False
            try:
                has_worked = await asyncio.to_thread(self.runner.run)
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + _jittered(FORGET_INTERVAL_S)
                    await asyncio.to_thread(self.runner.forget)
            except Unavailable as exc:
                log.warning("redrives.ledger_unavailable", reason=str(exc))
            except Exception:
                # The redrive is taken again when the lease of its step has expired.
                log.exception("redrives.loop_failed")
            if not has_worked:
                await asyncio.sleep(_jittered(PAUSE_S))


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
