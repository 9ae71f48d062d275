"""Wire the parts of `LLMService` to the ports of a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from callgate.domain.metric_ports import NO_METER, Meter
from callgate.domain.ports import ClockPort, LLMProviderPort
from callgate.services.claims import Claimant, Claims
from callgate.services.large_requests import LargeRequests, RequestRoom, endless_room
from callgate.services.learned_limits import LearnedLimits
from callgate.services.llm_service import LLMService
from callgate.services.quarantine import Quarantine, RunQuarantined
from callgate.services.repairs import Repairs
from callgate.services.reservations import ClaimTerms, Reservations
from callgate.services.retrying_ledger import LedgerAccess, RetryingLedger
from callgate.services.sending import AnswerRecorder, Sender
from callgate.services.settle_task_publisher import SettleTaskPublisher
from callgate.services.tracing import NO_TRACING, Tracing


def compose_llm_service(
    *,
    access: LedgerAccess,
    claimant: Claimant,
    terms: ClaimTerms,
    providers: Mapping[str, LLMProviderPort],
    settle_tasks: SettleTaskPublisher,
    clock: ClockPort,
    now: Callable[[], datetime],
    run_quarantined: RunQuarantined | None = None,
    room: RequestRoom = endless_room,
    learned: LearnedLimits | None = None,
    meter: Meter = NO_METER,
    tracing: Tracing = NO_TRACING,
) -> LLMService:
    """
    Wire the service of one process.

    Args:
        run_quarantined: None runs quarantined calls in this process.
        learned: Where the limits go that providers name. None: nothing is learned.
    """
    ledger = RetryingLedger(access, clock=clock, meter=meter)
    claims = Claims(ledger, claimant=claimant, clock=clock)
    reservations = Reservations(terms, providers=providers, now=now, grace_s=access.outages.grace_s)
    quarantine = run_quarantined and Quarantine(
        run_quarantined,
        ledger=ledger,
        claims=claims,
        reservations=reservations,
        on_locked=access.on_locked,
    )
    return LLMService(
        ledger=ledger,
        reservations=reservations,
        claims=claims,
        sender=Sender(providers, lease_epoch=claimant.lease_epoch, clock=clock, learned=learned),
        recorder=AnswerRecorder(ledger),
        settle_tasks=settle_tasks,
        repairs=Repairs(ledger, terms.catalogue),
        large_requests=LargeRequests(room, clock=clock, now=now),
        quarantine=quarantine,
        clock=clock,
        meter=meter,
        tracing=tracing,
    )
