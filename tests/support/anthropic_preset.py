"""What `presets.toml` declares for Anthropic's protocol, as fields of a provider's entry."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from callgate.domain.catalogue import ProviderEntry

PRESETS = resources.files("callgate.adapters.providers.anthropic") / "presets.toml"
PRESET: dict[str, Any] = {
    "protocol": "anthropic",
    **tomllib.loads(PRESETS.read_text("utf-8"))["defaults"],
}
ENTRY = ProviderEntry(**PRESET)
