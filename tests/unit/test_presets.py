"""Presets: each line has a source, and an entry of the catalogue lies above its preset and the protocol's defaults."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.catalogue_file import (
    PRESETS_FILE,
    PROVIDERS_PACKAGE,
    known_presets,
    load_catalogue,
)
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.providers.http.usage import COUNT_FIELDS, PLACES
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain import gates
from callgate.domain.catalogue import Catalogue, ProviderEntry, RequestField
from callgate.domain.errors import ConfigurationError, InvalidRequest, UnknownModel, UnpricedModel
from callgate.domain.presets import (
    DEFAULTS,
    OWN_LINES,
    SAFE,
    USAGE_FIELDS,
    Presets,
    merged,
)
from callgate.domain.requests import LLMRequest, Message, ServiceTier, Usage

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
COMPATIBLE = {
    *("llama_cpp", "vllm", "ollama", "azure", "gemini", "openrouter"),
    *("groq", "deepseek", "mistral"),
}
ALL = [
    (protocol, name)
    for protocol, presets in known_presets().items()
    for name in (DEFAULTS, *presets.names)
]
LINES = [
    (protocol, name, key)
    for protocol, presets in known_presets().items()
    for name, lines in presets.tables.items()
    for key in lines
]


def entry_of(text: str, tmp_path: Path) -> ProviderEntry:
    """The provider `p` of a catalogue with these lines."""
    file = tmp_path / "catalogue.toml"
    file.write_text(f"[providers.p]\n{text}\n")
    return load_catalogue(file).providers["p"]


def a_request(**fields: Any) -> LLMRequest:
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "x",
            "provider": "p",
            "model": "my-deployment",
            "messages": (Message(role="user", content="Hello, how many words is this?"),),
            "max_output_tokens": 100,
            **fields,
        }
    )


def test_the_servers_that_speak_openais_protocol_have_presets() -> None:
    assert set(known_presets()["openai"].names) >= COMPATIBLE


@pytest.mark.parametrize(("protocol", "name", "key"), LINES)
def test_a_line_names_its_source_and_the_day_it_was_read(
    protocol: str, name: str, key: str
) -> None:
    """In the file itself, so that nothing of the reader can fill it in."""
    file = resources.files(PROVIDERS_PACKAGE) / protocol / PRESETS_FILE
    tables = tomllib.loads(file.read_text("utf-8"))
    source = tables["sources"][tables[name][key]["source"]]

    assert source["url"].startswith("https://")
    assert source["as_of"].year >= 2025


@pytest.mark.parametrize(("protocol", "preset"), ALL)
def test_a_preset_is_a_valid_entry(protocol: str, preset: str) -> None:
    lines = known_presets()[protocol].below(None if preset == DEFAULTS else preset)

    entry = ProviderEntry.model_validate({"protocol": protocol, **lines})

    assert entry.base_url is None or not entry.base_url.endswith("/")


@pytest.mark.parametrize("protocol", known_presets())
def test_every_source_is_used(protocol: str) -> None:
    presets = known_presets()[protocol]

    used = {line.source for lines in presets.tables.values() for line in lines.values()}

    assert used == presets.sources.keys()


@pytest.mark.parametrize(("protocol", "preset"), ALL)
def test_the_counts_that_a_preset_names_are_read(protocol: str, preset: str) -> None:
    known = {field.path for field in COUNT_FIELDS} | set(PLACES)

    assert known >= set(known_presets()[protocol].value(preset, USAGE_FIELDS, ()))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"value": 1}, "source"),
        ({"value": 1, "source": "elsewhere"}, "there is no source 'elsewhere'"),
        ({"value": 1, "source": "page", "date": 1}, "date"),
        (1, "Line"),
    ],
)
def test_a_line_without_a_source_is_refused(line: object, says: str) -> None:
    page = {"url": "https://example.org", "as_of": "2026-11-29"}

    with pytest.raises(ValueError, match=says):
        Presets.of("p", {"sources": {"page": page}, "x": {"needs_key": line}})


@pytest.mark.parametrize("key", ["models", "extra_fields", "prices", "preset", "nonsense"])
def test_a_preset_cannot_decide_for_the_operator(key: str) -> None:
    page = {"url": "https://example.org", "as_of": "2026-11-29"}
    line = {"value": 1, "source": "page"}

    with pytest.raises(ValueError, match="no preset has this line"):
        Presets.of("p", {"sources": {"page": page}, "x": {key: line}})


def test_the_defaults_of_chat_completions_are_those_of_an_entry() -> None:
    """So a catalogue without a file and an entry without a preset are the same."""
    below = known_presets()["openai"].below(None)

    assert ProviderEntry.model_validate(below) == ProviderEntry()
    assert Catalogue().providers == {
        "openai": ProviderEntry(sends_service_tier=True, object_schemas=True)
    }


def test_an_entry_lies_above_its_preset(tmp_path: Path) -> None:
    entry = entry_of('preset = "groq"\nreasoning_fields = []\nneeds_key = false', tmp_path)

    assert entry.preset == "groq"
    assert entry.base_url == "https://api.groq.com/openai/v1"
    assert entry.rate_limit_headers == "groq"
    assert entry.reasoning_fields == ()
    assert entry.needs_key is False


KEYS = st.dictionaries(st.sampled_from(["needs_key", "unlimited", "base_url"]), st.integers())


@given(defaults=KEYS, preset=KEYS, entry=KEYS)
def test_the_entry_wins_then_the_preset_then_the_defaults(
    defaults: dict[str, int], preset: dict[str, int], entry: dict[str, int]
) -> None:
    def table(values: dict[str, int]) -> dict[str, Any]:
        return {key: {"value": value, "source": "page"} for key, value in values.items()}

    page = {"url": "https://example.org", "as_of": "2026-11-29"}
    tables = {"sources": {"page": page}, DEFAULTS: table(defaults), "x": table(preset)}
    known = {"odd": Presets.of("odd", tables)}

    found = merged({"preset": "x", **entry}, known)

    assert found == {**SAFE, **defaults, **preset, **entry, "preset": "x", "protocol": "odd"}


def test_a_protocol_that_declares_nothing_is_asked_for_nothing() -> None:
    """The defaults of an entry are OpenAI's dialect; another protocol must not inherit them."""
    entry = ProviderEntry.model_validate(
        merged({"protocol": "odd"}, {"odd": Presets.of("odd", {})})
    )

    assert set(entry.cannot) == set(get_args(RequestField))
    assert (entry.rate_limit_headers, entry.temperature_max) == ("none", 1.0)
    assert entry.system_first
    assert entry.object_arguments


@pytest.mark.parametrize("name", ["hear", "HEAR", "he_ar"])
def test_a_folder_reserves_names_of_its_own(name: str) -> None:
    """`extra` can never have them, whatever the operator writes."""
    page = {"url": "https://example.org", "as_of": "2026-11-29"}
    line = {"value": ["hear"], "source": "page"}
    tables = {"sources": {"page": page}, DEFAULTS: {"reserved_fields": line}, "x": {}}
    known = {"odd": Presets.of("odd", tables)}

    for entry in ({"protocol": "odd"}, {"preset": "x"}):
        with pytest.raises(ConfigurationError, match=f"extra_fields: the adapter writes {name} "):
            merged({**entry, "extra_fields": ["other", name]}, known)
        assert merged({**entry, "extra_fields": ["other"]}, known)["extra_fields"] == ["other"]


def test_a_preset_chooses_its_protocol() -> None:
    """The default one if that has it, else the only one; of several the entry must name one."""
    page = {"sources": {"page": {"url": "https://example.org", "as_of": "2026-11-29"}}}
    only: dict[str, Any] = {"only": {}}
    shared: dict[str, Any] = {"shared": {}}
    known = {
        "openai": Presets.of("openai", {**page, "chat": {}}),
        "one": Presets.of("one", {**page, **only, **shared, "chat": {}}),
        "two": Presets.of("two", {**page, **shared}),
    }

    assert merged({"preset": "chat"}, known)["protocol"] == "openai"
    assert merged({"preset": "only"}, known)["protocol"] == "one"
    assert merged({"preset": "shared", "protocol": "two"}, known)["protocol"] == "two"
    with pytest.raises(ConfigurationError, match="protocol: preset 'shared' needs one of one, two"):
        merged({"preset": "shared"}, known)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('preset = "grok"', "providers.p.preset: there is no 'grok', did you mean 'groq'?"),
        ('preset = "zzz"', "providers.p.preset: there is no 'zzz', only anthropic, azure"),
        ("preset = 3", "providers.p.preset: Input should be a valid string"),
        ('preset = "azure"', "providers.p.base_url: preset 'azure' needs it"),
        (
            'preset = "groq"\njson_scema = "tool"',
            "providers.p.json_scema: unknown key, did you mean 'json_schema'?",
        ),
        ('preset = "groq"\njson_schema = "xml"', "providers.p.json_schema: Input should be"),
        ("status_bills = { 429 = 'unknown' }", "the meaning of 429 is fixed"),
        ("tier_names = { flex = 'flex' }", "tier_names needs the tier default"),
        ("free_check = 'models'", "providers.p.free_check: String should match"),
        ("path = '/x?y=1'", "providers.p.path: String should match"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        entry_of(text, tmp_path)

    assert str(tmp_path) in str(raised.value)
    assert says in str(raised.value)


def test_reading_presets_imports_no_sdk() -> None:
    code = (
        "import sys; from callgate.adapters.catalogue_file import known_presets, recordings;"
        "known_presets(); recordings();"
        "sys.exit(bool({'openai', 'anthropic', 'httpx2', 'aiohttp'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


AZURE = (
    'preset = "azure"\nbase_url = "https://r.openai.azure.com/openai"\n'
    'models = { my-deployment = "gpt-4o-mini" }'
)


def catalogue_of(entry: ProviderEntry) -> Catalogue:
    return Catalogue(providers={"p": entry})


def test_a_deployment_has_the_price_and_the_tokenizer_of_its_model(tmp_path: Path) -> None:
    catalogue = catalogue_of(entry_of(AZURE, tmp_path))
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)

    bound = TokenEstimator(catalogue).input_bound(a_request())
    priced = CostCalculator(catalogue).cost("p", "my-deployment", usage, ServiceTier.DEFAULT, NOW)
    held = CostCalculator(catalogue).worst_case(a_request(), bound.tokens, NOW)

    # 0.15 USD and 0.60 USD per million tokens: azure.microsoft.com, Azure OpenAI pricing, read 2026-11-29.
    assert priced.nano_usd == 750_000_000
    assert "azure/gpt-4o-mini" in priced.price_source
    assert bound.method in ("bpe-openai", "tiktoken")
    assert held.nano_usd == bound.tokens * 150 + 100 * 600


def test_a_deployment_of_an_unknown_model_is_refused(tmp_path: Path) -> None:
    """Its name says nothing: even `gpt-4o` may be a deployment of something dearer."""
    catalogue = catalogue_of(entry_of(AZURE, tmp_path))

    with pytest.raises(UnknownModel, match=r"models of \[providers.p\]"):
        gates.check_size(a_request(model="gpt-4o"), catalogue)

    gates.check_size(a_request(), catalogue)


def test_an_alias_needs_no_list(tmp_path: Path) -> None:
    """vLLM's served names beside a model's own name."""
    entry = entry_of(
        'pricing_provider = "groq"\nmodels = { small = "llama-3.1-8b-instant" }', tmp_path
    )
    costs = CostCalculator(catalogue_of(entry))
    usage = Usage(input_tokens=1_000, output_tokens=1_000)

    prices = {
        costs.cost("p", name, usage, ServiceTier.DEFAULT, NOW)
        for name in ("small", "llama-3.1-8b-instant")
    }

    assert len(prices) == 1
    with pytest.raises(UnpricedModel, match="no price for p/other"):
        costs.cost("p", "other", usage, ServiceTier.DEFAULT, NOW)


def test_a_tier_without_a_name_is_refused(tmp_path: Path) -> None:
    entry = entry_of('sends_service_tier = true\ntier_names = { default = "on_demand" }', tmp_path)
    catalogue = catalogue_of(entry)

    with pytest.raises(InvalidRequest, match="has no service tier 'flex'"):
        gates.check_size(a_request(service_tier="flex"), catalogue)

    assert entry.tier_of("on_demand") == "default"
    assert entry.tier_of("turbo") == "turbo"


@pytest.mark.parametrize(("protocol", "preset"), ALL)
def test_a_field_that_is_no_key_is_not_merged(protocol: str, preset: str) -> None:
    assert not OWN_LINES & known_presets()[protocol].below(preset).keys()
