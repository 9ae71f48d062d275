"""The API keys of providers, as the worker's environment has them. `callgate.cli` loads this file by its path."""

from __future__ import annotations

from callgate.adapters.file_credentials import FileCredentials
from callgate.domain.catalogue import Catalogue
from callgate.settings import ClientSettings, load_settings
from config.settings import WorkerSettings


def credentials_of(client: ClientSettings, catalogue: Catalogue) -> FileCredentials:
    """
    The keys that a worker in this environment has.

    Raises:
        ConfigurationError: The worker's settings cannot work, or a key cannot be sent.
    """
    settings = load_settings(
        WorkerSettings,
        database_url=client.database_url.get_secret_value(),
        broker_url=client.broker_url.get_secret_value(),
    )
    return FileCredentials(settings.api_keys(catalogue.providers), settings.worker.credentials_dir)
