"""What `callgate-worker` needs: the client of the same version, and the groups of the client's pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

EXTRAS = ("embedded", "demo")


class WorkerMetadata(MetadataHookInterface):
    """Adds the requirements."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Name the client exactly: both speak to the same ledger and share modules."""
        project = tomllib.loads((Path(self.root).parents[1] / "pyproject.toml").read_text())
        groups, extras = project["dependency-groups"], project["project"]["optional-dependencies"]
        client = f"callgate=={metadata['version']}"
        metadata["dependencies"] = [client, *groups["worker"]]
        metadata["optional-dependencies"] = {
            **{name: groups[name] for name in EXTRAS},
            **{name: [f"callgate[{name}]=={metadata['version']}"] for name in extras},
        }
