"""Two tenants share a broker and look for each other's figures in the budget cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import count

import pytest
from redis import Redis

from callgate import Client
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budgets import BudgetFigures, Window
from callgate.settings import ClientSettings
from devkit.servers.embedded import DevServers
from tests.support.logins import a_client

LIMIT_NANO_USD = 12_345_678_901
COPIES = "callgate:budgets:*"
_numbers = count(1)


@dataclass(frozen=True)
class Tenants:
    """Two clients with their own logins and one broker. Only `globex` has a budget."""

    acme: Client
    globex: Client
    globex_too: Client
    """Another process of the same login."""
    org: str
    """The organisation of globex."""
    broker: Redis


@pytest.fixture
def tenants(services: DevServers) -> Iterator[Tenants]:
    """Both clients, and the shared broker. Cache entries outlast the test."""
    with ExitStack() as stack:
        owner = stack.enter_context(closing(PostgresSession(services.database_url)))
        broker = stack.enter_context(Redis.from_url(services.broker_url))
        number = next(_numbers)
        org = f"globex-{number}"

        def a_tenant(url: str) -> Client:
            settings = ClientSettings(
                database_url=url,
                broker_url=services.broker_url,
                cache_url=services.broker_url,
                budget_cache_ttl_s=600,
            )
            return stack.enter_context(Client(settings))

        with Client(
            ClientSettings(database_url=services.database_url, broker_url=services.broker_url)
        ) as operator:
            operator.operations.set_budget(org, "org", Window.DAY, LIMIT_NANO_USD)
        acme = stack.enter_context(a_client(owner, f"acme-{number}"))
        globex = stack.enter_context(a_client(owner, org))
        yield Tenants(a_tenant(acme), a_tenant(globex), a_tenant(globex), org, broker)
        broker.delete(*broker.scan_iter(COPIES), "nothing")


def limits(figures: list[BudgetFigures]) -> list[int]:
    """The limits in an answer."""
    return [budget.limit_nano_usd for budget in figures]


def test_a_cache_entry_tells_another_tenant_nothing(tenants: Tenants) -> None:
    """The ledger shows acme nothing of globex, and globex's cache entry shows no more."""
    assert limits(tenants.globex.budgets(tenants.org)) == [LIMIT_NANO_USD]

    assert tenants.acme.budgets(tenants.org) == []


def test_an_empty_entry_is_not_used_by_another_tenant(tenants: Tenants) -> None:
    """Acme asks first and has no budget. Globex still gets its own figures."""
    assert tenants.acme.budgets(tenants.org) == []

    assert limits(tenants.globex.budgets(tenants.org)) == [LIMIT_NANO_USD]


def test_a_cache_entry_serves_its_own_login(tenants: Tenants) -> None:
    """The control: a second process of globex reads it."""
    tenants.globex.budgets(tenants.org)
    tenants.globex_too.operations = None  # type: ignore[assignment]  # the ledger is not asked

    (budget,) = tenants.globex_too._budget_cache.get(tenants.org, lambda _: [])

    assert budget.limit_nano_usd == LIMIT_NANO_USD


def test_forged_cache_entries_are_ignored(tenants: Tenants) -> None:
    """Forged entries, entries of older versions, and an own entry moved to another tenant's key."""
    (true,) = tenants.globex.budgets(tenants.org)
    (theirs,) = tenants.broker.scan_iter(COPIES)
    tenants.acme.budgets(tenants.org)
    (own,) = {*tenants.broker.scan_iter(COPIES)} - {theirs}
    forged = json.dumps([{**asdict(true), "limit_nano_usd": 0}], default=str)
    values = (forged.encode(), b"[]", b"", tenants.broker.get(own) or b"", b"\0" * 2**20)

    for value in values:
        for name in (theirs, f"callgate:budgets:{tenants.org}"):
            tenants.broker.set(name, value, px=1_000)
        assert limits(tenants.globex.budgets(tenants.org)) == [LIMIT_NANO_USD]


def test_the_cache_shows_neither_names_nor_figures(tenants: Tenants) -> None:
    """Not even to a reader of all its keys."""
    tenants.globex.budgets(tenants.org)

    shown = b"".join(
        name + (tenants.broker.get(name) or b"") for name in tenants.broker.scan_iter(COPIES)
    )

    assert tenants.org.encode() not in shown
    assert str(LIMIT_NANO_USD).encode() not in shown
