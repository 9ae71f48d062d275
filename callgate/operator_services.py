"""What a client does for operators. It is imported at its first use: a pipeline that submits needs none of it."""

from __future__ import annotations

from callgate.adapters.postgres.dead_letters import PostgresEndedCalls
from callgate.adapters.postgres.redrives import PostgresRedrives
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tenants import PostgresTenants
from callgate.client_clock import ClientClock
from callgate.domain.catalogue import Catalogue
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.ports import LedgerPort
from callgate.replaced_ports import OperatorPorts
from callgate.services.bills import BillService
from callgate.services.calls import CallService
from callgate.services.dead_letters import DeadLetterService
from callgate.services.discards import DiscardService
from callgate.services.estimates import EstimateService
from callgate.services.providers import ProviderCheckService
from callgate.services.purge import PurgeService
from callgate.services.redrives import RedriveService
from callgate.services.submit import SubmitService
from callgate.services.tenants import TenantService


class OperatorServices:
    """The services of one client."""

    def __init__(
        self,
        ledger: LedgerPort,
        operations: OperationsPort,
        submits: SubmitService,
        *,
        quotes: SubmitService,
        session: PostgresSession,
        ports: OperatorPorts,
        catalogue: Catalogue,
        clock: ClientClock,
    ) -> None:
        self.dead_letters = DeadLetterService(ledger, operations, submits)
        self.redrives = RedriveService(
            ports.redrives or PostgresRedrives(session), operations, clock.now
        )
        self.discards = DiscardService(ports.ended or PostgresEndedCalls(session))
        self.calls = CallService(ledger, operations)
        self.estimates = EstimateService(quotes, operations, catalogue)
        self.bills = BillService(operations)
        self.purges = PurgeService(
            ports.retention or PostgresRetention(session), operations, catalogue.retention
        )
        self.tenants = TenantService(PostgresTenants(session))
        self.provider_checks = ProviderCheckService(
            submits=submits, ledger=ledger, sleep=clock.pause, monotonic=clock.monotonic
        )
