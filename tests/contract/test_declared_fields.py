"""What a protocol's folder declares is true of what its adapter writes: nothing is dropped, nothing is overwritten."""

from __future__ import annotations

import asyncio
import json
from typing import Any, get_args
from uuid import uuid4

import pytest

from callgate.adapters.catalogue_file import known_presets
from callgate.domain.catalogue import ProviderEntry, RequestField
from callgate.domain.dialect import why_inexpressible
from callgate.domain.errors import ConfigurationError
from callgate.domain.messages import Message, Tool, ToolCall
from callgate.domain.presets import DEFAULTS, Presets, merged
from callgate.domain.requests import LLMRequest
from tests.contract.provider_steps import a_request
from tests.support import own_protocol
from tests.support.field_values import FIELD_VALUES, FIELDS_BESIDE
from tests.support.provider_worlds import SocketServer, adapter_for, sends_json

KNOWN: dict[str, Presets] = {**known_presets(), own_protocol.PROTOCOL: own_protocol.PRESETS}
ALL = [
    (protocol, name) for protocol, presets in KNOWN.items() for name in (DEFAULTS, *presets.names)
]
HINTS = {"temperature", "top_p", "top_k", "seed", "stop", "stop_sequences", "verbosity"}
HINTS |= {"prompt_cache_key"}
"""Fields that change neither what is paid nor what comes back as a result: an operator may let `extra` have them."""


def entry_of(protocol: str, preset: str) -> ProviderEntry:
    """The entry of an operator who declares nothing else."""
    chosen = {} if preset == DEFAULTS else {"preset": preset}
    needed = dict.fromkeys(KNOWN[protocol].value(preset, "needs", ()), "http://127.0.0.1")
    lines = merged({"protocol": protocol, **chosen, **needed}, KNOWN)
    return ProviderEntry.model_validate({**lines, "models": {}})


def bodies(entry: ProviderEntry, *requests: LLMRequest) -> list[dict[str, Any]]:
    """What the adapter sends for each request."""

    async def sent() -> list[dict[str, Any]]:
        rest = entry.model_dump(exclude={"base_url"})
        async with (
            SocketServer(sends_json({})) as server,
            adapter_for(server.base_url, **rest) as adapter,
        ):
            for request in requests:
                await adapter.complete(request, attempt_id=uuid4(), timeout_s=20)
            return [received.fields for received in server.received]

    found = asyncio.run(sent())
    assert len(found) == len(requests)
    return found


@pytest.mark.parametrize(("protocol", "preset"), ALL)
def test_each_field_is_sent_or_refused_at_submit(protocol: str, preset: str) -> None:
    """A tier without `sends_service_tier` has no price, so it is refused too; see `CostCalculator`."""
    entry = entry_of(protocol, preset)
    refused = {
        "service_tier" if not entry.sends_service_tier else "",
        *entry.cannot,
        *(["service_tier"] if FIELD_VALUES["service_tier"] not in entry.tier_names else []),
    }
    names = [name for name in get_args(RequestField) if name not in refused]
    pairs = [
        (
            a_request(**FIELDS_BESIDE.get(name, {})),
            a_request(**FIELDS_BESIDE.get(name, {}), **{name: FIELD_VALUES[name]}),
        )
        for name in names
    ]
    sent = bodies(entry, *(request for pair in pairs for request in pair))

    for name, (_, request) in zip(names, pairs, strict=True):
        assert why_inexpressible(request, entry) is None, name
    dropped = [
        name
        for name, without, given in zip(names, sent[::2], sent[1::2], strict=True)
        if without == given
    ]
    assert dropped == []


@pytest.mark.parametrize("protocol", KNOWN)
def test_extra_can_have_no_field_that_the_adapter_writes(protocol: str) -> None:
    """It would lose against the adapter's, or worse, win."""
    entry = entry_of(protocol, DEFAULTS)
    apart = ("n", "thinking_tokens", *entry.cannot)
    fields: dict[str, Any] = {
        name: value for name, value in FIELD_VALUES.items() if name not in apart
    }
    call = ToolCall(id="c1", name="add", arguments="{}")
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="1+2?"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="3", tool_call_id="c1"),
    )
    (sent,) = bodies(
        entry, a_request(**{**fields, "messages": turns, "tools": (Tool(name="add"),)})
    )

    free = set()
    for name in sent:
        try:
            lines = merged({"protocol": protocol, "extra_fields": [name]}, KNOWN)
            ProviderEntry.model_validate(lines)
            free.add(name)
        except (ConfigurationError, ValueError):
            continue
    assert free <= HINTS


@pytest.mark.parametrize("protocol", KNOWN)
def test_extra_is_sent_below_what_the_adapter_writes(protocol: str) -> None:
    entry = entry_of(protocol, DEFAULTS)
    extra = {"model": "dear", "odd": [1.5]}

    (sent,) = bodies(entry, a_request(extra=json.dumps(extra)))

    assert (sent["model"], sent["odd"]) == ("gpt-4o-mini", [1.5])
