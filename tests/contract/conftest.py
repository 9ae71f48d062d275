"""Fixtures of the contract tests, which every ledger and every provider must pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callgate.adapters.postgres.session import PostgresSession
from tests.support.contract_providers import PROVIDERS
from tests.support.ledger_under_test import LedgerUnderTest, open_memory, open_postgres
from tests.support.openai_attempts import no_proxies
from tests.support.provider_worlds import ProviderUnderTest

__all__ = ["ledger", "no_proxies", "opened"]


@pytest.fixture(params=["memory", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Iterator[LedgerUnderTest]:
    """A fresh ledger in which "acme" may spend 1,000 nano-USD per day."""
    if request.param == "memory":
        yield open_memory()
        return
    request.getfixturevalue("postgres_engine")
    session: PostgresSession = request.getfixturevalue("postgres_session")
    yield open_postgres(session)


@pytest.fixture(params=PROVIDERS, ids=lambda provider: provider.name)
def opened(request: pytest.FixtureRequest) -> ProviderUnderTest:
    """Opens a provider that follows rules."""
    provider: ProviderUnderTest = request.param
    return provider
