"""What `presets.toml` declares for Anthropic's protocol, as fields of a provider's entry."""

from __future__ import annotations

from typing import Any

from callgate.adapters.catalogue_file import known_presets
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.presets import merged

PRESET: dict[str, Any] = merged({"protocol": "anthropic"}, known_presets())
ENTRY = ProviderEntry(**PRESET)
