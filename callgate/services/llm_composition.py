"""Wire the parts of `LLMService` to the ports of a process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.catalogue import Catalogue
from callgate.domain.ports import ClockPort, CostCalculatorPort, LLMProviderPort
from callgate.services.claims import Claims
from callgate.services.large_requests import LargeRequests, RequestRoom, endless_room
from callgate.services.learned_limits import LearnedLimits
from callgate.services.llm_service import LLMService
from callgate.services.quarantine import Quarantine, RunQuarantined
from callgate.services.repairs import Repairs
from callgate.services.reservations import AskGates, Reservations
from callgate.services.retrying_ledger import CallLedger, OutagePolicy, RetryingLedger
from callgate.services.sending import AnswerRecorder, Sender
from callgate.services.settle_tasks import SettleTasks


def compose_llm_service(
    *,
    ledger: CallLedger,
    providers: Mapping[str, LLMProviderPort],
    costs: CostCalculatorPort,
    catalogue: Catalogue,
    ask_gates: AskGates,
    publish_settle_task: Callable[[AttemptRef], Awaitable[None]],
    settle_here: Callable[[AttemptRef], Awaitable[object]],
    clock: ClockPort,
    now: Callable[[], datetime],
    outages: OutagePolicy,
    worker_id: str,
    lease_epoch: Callable[[], object | None],
    default_limit_nano_usd: int | None = None,
    run_quarantined: RunQuarantined | None = None,
    room: RequestRoom = endless_room,
    on_locked: Callable[[CallKey], None] = lambda _: None,
    learned: LearnedLimits | None = None,
) -> LLMService:
    """
    Wire the service of one process.

    Args:
        lease_epoch: See `LeaseService.epoch`.
        run_quarantined: None runs quarantined calls in this process.
        on_locked: Called with a call that could not be claimed because it stayed locked.
        learned: Where the limits go that providers name. None: nothing is learned.
    """
    retrying = RetryingLedger(ledger, outages=outages, clock=clock, on_locked=on_locked)
    claims = Claims(retrying, worker_id=worker_id, lease_epoch=lease_epoch, clock=clock)
    reservations = Reservations(
        providers=providers,
        costs=costs,
        catalogue=catalogue,
        ask_gates=ask_gates,
        now=now,
        grace_s=outages.grace_s,
        default_limit_nano_usd=default_limit_nano_usd,
    )
    quarantine = run_quarantined and Quarantine(
        run_quarantined,
        ledger=retrying,
        claims=claims,
        reservations=reservations,
        on_locked=on_locked,
    )
    return LLMService(
        ledger=retrying,
        reservations=reservations,
        claims=claims,
        sender=Sender(providers, lease_epoch=lease_epoch, clock=clock, learned=learned),
        recorder=AnswerRecorder(retrying),
        settle_tasks=SettleTasks(publish_settle_task, settle_here),
        repairs=Repairs(retrying, catalogue),
        large_requests=LargeRequests(room, clock=clock, now=now),
        quarantine=quarantine,
        clock=clock,
    )
