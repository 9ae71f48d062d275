"""The adapter of each provider of the catalogue, with its keys."""

from __future__ import annotations

from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.providers import adapter_class
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.ports import CredentialsPort, LLMProviderPort
from config.settings import WorkerSettings


def providers_of(settings: WorkerSettings, catalogue: Catalogue) -> dict[str, LLMProviderPort]:
    """Return the real adapters of the catalogue's providers."""
    credentials = FileCredentials(
        settings.api_keys(catalogue.providers), settings.worker.credentials_dir
    )
    connections_max = settings.worker.connections_max
    return {
        name: _adapter(name, entry, credentials, connections_max)
        for name, entry in catalogue.providers.items()
    }


def _adapter(
    name: str, entry: ProviderEntry, credentials: CredentialsPort, connections_max: int
) -> LLMProviderPort:
    """
    The adapter of the provider's protocol.

    Raises:
        ConfigurationError: No folder of `callgate/adapters/providers` has that protocol.
    """
    adapter = adapter_class(entry.protocol)
    return adapter(name, entry, credentials, connections_max=connections_max)
