"""The providers that the contract of `LLMProviderPort` is tested with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from callgate.adapters.catalogue_file import known_presets
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.messages import ReasoningBlock
from callgate.domain.presets import merged
from tests.support import own_protocol
from tests.support.anthropic_wire import MESSAGES_WIRE, REFUSAL_ENDING
from tests.support.openai_wires import CHAT_WIRE, REASONING_FIELD, RESPONSES_WIRE
from tests.support.parrot_wire import PARROT_WIRE
from tests.support.provider_worlds import ProviderUnderTest


def _entry(protocol: str) -> ProviderEntry:
    """What the protocol's presets say of a provider that declares nothing else."""
    return ProviderEntry.model_validate(merged({"protocol": protocol}, known_presets()))


def _thought(protocol: str, data: Any) -> ReasoningBlock:
    return ReasoningBlock(
        protocol=protocol, text="hm", data=json.dumps(data, separators=(",", ":"))
    )


MEMORY = ProviderUnderTest("memory", ProviderEntry(cannot=()), None, _thought("memory", {}))
CHAT = ProviderUnderTest(
    "chat",
    ProviderEntry(sends_service_tier=True, reasoning_fields=(REASONING_FIELD,)),
    CHAT_WIRE,
    _thought("openai", {REASONING_FIELD: "hm"}),
)
RESPONSES = ProviderUnderTest(
    "responses",
    _entry("openai_responses"),
    RESPONSES_WIRE,
    _thought(
        "openai_responses",
        [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "gAAA",
            },
        ],
    ),
)
MESSAGES = ProviderUnderTest(
    "messages",
    _entry("anthropic"),
    MESSAGES_WIRE,
    _thought("anthropic", {"type": "thinking", "thinking": "hm", "signature": "c2ln"}),
    refusal_ending=REFUSAL_ENDING,
)
PARROT = ProviderUnderTest(
    "parrot",
    own_protocol.ENTRY,
    PARROT_WIRE,
    unsaid={"service_tier": None, "refusal": None},
    unsaid_counts=("cache_write_tokens", "reasoning_tokens"),
    joins_system_roles=True,
)
UNDECLARED = replace(PARROT, name="undeclared", entry=own_protocol.UNDECLARED)
"""A protocol that declares nothing, so it can be asked for messages and nothing else."""
PROVIDERS = (MEMORY, CHAT, RESPONSES, MESSAGES, PARROT, UNDECLARED)
