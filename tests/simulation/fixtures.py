"""What files of tests about lives share; each imports what it uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.world import quiet


@pytest.fixture(autouse=True, scope="module")
def quiet_services() -> Iterator[None]:
    """Nobody reads what the services log there."""
    quiet()
    yield
    structlog.reset_defaults()
