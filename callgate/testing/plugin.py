"""
Fixtures for pytest: `callgate_client` in memory, `callgate_deployment` on real servers.

Every run of pytest loads this file where callgate is installed, so it imports nothing of callgate until a test asks for
a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from callgate.testing.client import MemoryClient


@pytest.fixture
def callgate_catalogue() -> Path | None:
    """The catalogue of the fixtures below; None: OpenAI with default limits. Override it in your conftest.py."""
    return None


@pytest.fixture
def callgate_client(
    callgate_catalogue: Path | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MemoryClient]:
    """
    A client whose calls are answered in memory. During the test `Client.from_env()` returns it too.

    At the end the test fails if a request had no rule, or a link has raised.
    """
    from callgate.client import Client
    from callgate.testing.client import MemoryClient

    client = MemoryClient(catalogue=callgate_catalogue)
    monkeypatch.setattr(Client, "from_env", lambda: client)
    yield client
    client.close()
    client.verify()


@pytest.fixture(scope="session")
def callgate_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """
    Postgres, Valkey, a worker and a simulated provider on this machine, for all tests of the run.

    `client` submits, `simulator` is scripted. It needs the checkout or the worker's installation, with the extra
    `embedded`; elsewhere a test that asks for it fails.
    """
    from callgate.cli.checkout import CHECKOUT, module_at

    path = CHECKOUT / "devkit" / "deployment.py"
    if not path.exists():
        pytest.fail(
            "callgate_deployment needs callgate's worker in this environment", pytrace=False
        )
    with module_at(path).Deployment(tmp_path_factory.mktemp("callgate")) as deployment:
        yield deployment
