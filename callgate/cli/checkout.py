"""
What a checkout or `callgate-worker` has beside the library: it is found by its path, and used only if it is there.

In an environment of the client alone another distribution may have installed packages of these names.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callgate.client import Client
    from callgate.services.doctor import Check
    from callgate.services.providers import WorkerKeys

CHECKOUT = Path(__file__).parents[2]
WORKER = "callgate-worker"
WORKER_KEYS = "worker/provider_keys.py"
WORKER_CHECKS = "worker/doctor_checks.py"


def has_worker() -> bool:
    """True in a checkout, in the image, and where `callgate-worker` is installed."""
    if not any(CHECKOUT.glob("callgate-*.dist-info")):
        return (CHECKOUT / "worker" / "cli.py").exists()
    try:
        return bool(version(WORKER))
    except PackageNotFoundError:
        return False


def module_at(path: Path) -> Any:
    """Load by path, not by name: the library must not import the worker, and another package may be called `worker`."""
    spec = importlib.util.spec_from_file_location(f"callgate_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worker_checks(client: Client) -> list[Check]:
    """The doctor's checks of what a worker in this environment would have; none where no worker can run."""
    if not has_worker():
        return []
    checks: list[Check] = module_at(CHECKOUT / WORKER_CHECKS).worker_checks(
        client.settings, client.catalogue
    )
    return checks


def worker_credentials(client: Client) -> WorkerKeys | None:
    """
    The API keys of this environment, as a worker reads them; None where no worker can run.

    Raises:
        ConfigurationError: The worker's settings cannot work.
    """
    if not has_worker():
        return None
    credentials: WorkerKeys = module_at(CHECKOUT / WORKER_KEYS).credentials_of(
        client.settings, client.catalogue
    )
    return credentials
