"""What a checkout has beside the library: it is found by its path, and used only if it is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callgate.client import Client
    from callgate.domain.ports import CredentialsPort

CHECKOUT = Path(__file__).parents[2]
WORKER_KEYS = "worker/provider_keys.py"


def module_at(path: Path) -> Any:
    """Load by path, not by name: the library must not import the worker, and another package may be called `worker`."""
    spec = importlib.util.spec_from_file_location(f"callgate_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worker_credentials(client: Client) -> CredentialsPort | None:
    """
    The API keys of this environment, as a worker reads them; None where no worker can run.

    Raises:
        ConfigurationError: The worker's settings cannot work.
    """
    path = CHECKOUT / WORKER_KEYS
    if not path.exists():
        return None
    credentials: CredentialsPort = module_at(path).credentials_of(client.settings, client.catalogue)
    return credentials
