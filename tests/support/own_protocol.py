"""Parrot, the protocol of docs/howto/add-a-provider.md, as if its folder were in `callgate/adapters/providers`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from callgate.adapters.catalogue_file import PRESETS_FILE, PROVIDERS_PACKAGE
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.presets import Presets, merged
from tests.support import parrot
from tests.support.parrot import parrot_adapter

FOLDER = Path(__file__).parent / "parrot"
PROTOCOL = "parrot"
PRESETS = Presets.of(PROTOCOL, tomllib.loads((FOLDER / PRESETS_FILE).read_text("utf-8")))
PRESET: dict[str, Any] = merged({"protocol": PROTOCOL}, {PROTOCOL: PRESETS})
ENTRY = ProviderEntry.model_validate(PRESET)
UNDECLARED = ProviderEntry.model_validate(
    merged({"protocol": PROTOCOL}, {PROTOCOL: Presets.of(PROTOCOL, {})})
)
"""The protocol without its `presets.toml`."""

# `providers.adapter_class` finds it by name.
sys.modules[f"{PROVIDERS_PACKAGE}.{PROTOCOL}"] = parrot
sys.modules[f"{PROVIDERS_PACKAGE}.{PROTOCOL}.{parrot.ADAPTER[0]}"] = parrot_adapter
