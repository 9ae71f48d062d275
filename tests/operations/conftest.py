"""
What operators see and do: pages, alerts, metrics, health, the doctor.

Each file has a deployment, as in `tests/acceptance`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import deployment, provider, standing
from tests.support.deployment import Deployment
from tests.support.ledger_under_test import LedgerUnderTest
from tests.support.operators_pages import PagesUnderTest, the_pages
from tests.support.visitor import Visitor

__all__ = ["deployment", "provider", "standing"]


@pytest.fixture(scope="module")
def pages(standing: Deployment) -> Iterator[PagesUnderTest]:
    """One Flower for all tests of a file; each test has organisations of its own."""
    with the_pages(standing) as pages:
        yield pages


@pytest.fixture
def ledger(pages: PagesUnderTest) -> LedgerUnderTest:
    """What they show."""
    return pages.ledger


@pytest.fixture
def ann(pages: PagesUnderTest) -> Visitor:
    """An operator."""
    return pages.visitor("ann")


@pytest.fixture
def vera(pages: PagesUnderTest) -> Visitor:
    """A viewer."""
    return pages.visitor("vera")


@pytest.fixture
def rita(pages: PagesUnderTest) -> Visitor:
    """She may read bodies, and change nothing."""
    return pages.visitor("rita")
