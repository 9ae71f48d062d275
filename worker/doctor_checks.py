"""Checks of what a worker in this environment would have. `callgate.cli` loads this file by its path."""

from __future__ import annotations

from pathlib import Path

from callgate.adapters.file_credentials import FileCredentials
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.services.doctor import Check, Seen, failed_check, failure, named, warning
from callgate.settings import ClientSettings, load_settings
from config.settings import WorkerSettings, check_relations

FOLDER = "CALLGATE_WORKER__CREDENTIALS_DIR"


def worker_checks(client: ClientSettings, catalogue: Catalogue) -> list[Check]:
    """Checks of a worker's settings and of its folder of secrets."""
    try:
        settings = load_settings(
            WorkerSettings,
            database_url=client.database_url.get_secret_value(),
            broker_url=client.broker_url.get_secret_value(),
        )
        check_relations(settings, catalogue)
    except ConfigurationError as exc:
        return [failed_check("worker settings", exc)]
    return [
        Check("worker settings", lambda: "valid, and they go together"),
        Check("secrets folder", lambda: secrets_folder(settings.worker.credentials_dir, catalogue)),
    ]


def secrets_folder(folder: Path | None, catalogue: Catalogue) -> Seen:
    """Whether a worker could read the keys of the folder."""
    if folder is None:
        return Seen(f"{FOLDER} is not set: keys come from variables only")
    faults = FileCredentials({}, folder).folder_faults(catalogue.providers)
    if not faults:
        return Seen(f"{folder} can be read")
    if faults[0].startswith("it "):
        return failure(f"{folder}: {faults[0]}")
    return warning(f"{folder}: {named(faults)}")
