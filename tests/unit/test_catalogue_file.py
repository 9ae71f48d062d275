"""The catalogue file: a mistake stops the process, and the message names the key."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.cost_calculator import CostCalculator
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError

SHIPPED = Path(__file__).parents[2] / "config" / "catalogue.toml"
ROW = """
[[prices]]
provider = "openai"
model = "gpt-4o"
input_usd_per_million = 2.10
output_usd_per_million = 8
source = "agreement"
as_of = 2026-11-01
"""
FREE_ROW = """
[[prices]]
provider = "openai"
model = "gpt-4o"
free = true
source = "own machine"
as_of = 2026-11-01
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A path for one catalogue."""
    return tmp_path / "catalogue.toml"


def test_an_empty_file_is_the_default_catalogue(written: Path) -> None:
    written.write_text("")

    assert load_catalogue(written) == Catalogue()


def test_prices_are_read_exactly(written: Path) -> None:
    """As decimals, never as binary floats."""
    written.write_text(ROW.replace("2.10", "0.12345678901234567890123"))

    price = load_catalogue(written).prices[0].input_usd_per_million

    assert price == Decimal("0.12345678901234567890123")


@pytest.mark.parametrize("password", ["ca/nary", "ca?nary", "ca#nary", "ca[nary", "ca\u2100nary"])
def test_an_unescaped_password_in_a_base_url_is_refused(written: Path, password: str) -> None:
    """Part of it would be parsed as a port and quoted. The advice quotes nothing."""
    written.write_text(f'[providers.p]\nbase_url = "https://user:{password}@host/v1"\n')

    with pytest.raises(ConfigurationError, match="is written %") as refused:
        load_catalogue(written)

    assert "providers.p.base_url" in str(refused.value)
    assert "canary" not in str(refused.value).replace(password[2], "")


@pytest.mark.parametrize("url", ["http://h:99999/v1", "http://h:port/v1", "http://[::1/v1"])
def test_a_base_url_with_an_impossible_host_or_port_is_refused(written: Path, url: str) -> None:
    written.write_text(f'[providers.p]\nbase_url = "{url}"\n')

    with pytest.raises(ConfigurationError, match=r"providers\.p\.base_url: .*is written %"):
        load_catalogue(written)


@pytest.mark.parametrize("url", ["http://h:1/v1", "https://h/@team/v1", "https://u:p%2Fw@h/v1"])
def test_a_valid_base_url_is_accepted(written: Path, url: str) -> None:
    """With a port, an @ in its path, or an escape."""
    written.write_text(f'[providers.p]\nbase_url = "{url}"\n')

    assert load_catalogue(written).providers["p"].base_url == url


def test_the_shipped_catalogue_is_valid_and_its_models_are_priced() -> None:
    catalogue = load_catalogue(SHIPPED)

    assert "extraction" in catalogue.call_types
    assert catalogue.providers["openai"].sends_service_tier
    assert CostCalculator(catalogue) is not None


def test_the_examples_in_the_shipped_catalogue_are_valid(written: Path) -> None:
    """Lines after `#:` can be uncommented unchanged. Each price row has its source and day."""
    text = SHIPPED.read_text().replace("\n#: ", "\n").replace("\n#:\n", "\n\n")
    written.write_text(text)

    catalogue = load_catalogue(written)

    assert {row.provider for row in catalogue.prices} >= {"openai", "local"}
    assert all(row.source and row.as_of for row in catalogue.prices)
    assert catalogue.retention.body_ages().max_s("acme") == 7 * 86_400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("= 1", "is not TOML"),
        ("[providers.openai]\n[providers.openai]", "is not TOML"),
        ("[default]\ndeadlin_s = 3", "default.deadlin_s: unknown key, did you mean 'deadline_s'?"),
        ("[default]\nlost_max = 3", "default.lost_max: renamed, use worker_losses_max"),
        ("colour = 'red'", "colour: unknown key"),
        (
            "[call_types.extraction]\ndeadline_s = 0",
            "call_types.extraction.deadline_s: Input should",
        ),
        ("[providers.x]\nprotocol = 'smtp'", "providers.x.protocol: there is no 'smtp', only"),
        ("[[prices]]\nprovider = 'openai'", "prices[0].model: Field required"),
        (ROW.replace("source", "#"), "prices[0].source: Field required"),
        (ROW.replace("as_of", "#"), "prices[0].as_of: Field required"),
        (ROW.replace("2.10", "-1"), "prices[0].input_usd_per_million: Input should be greater"),
        (ROW + ROW, "prices: openai/gpt-4o: 2 rows for the default tier above 0 input tokens"),
        (
            ROW + "above_input_tokens = 9",
            "gpt-4o: no row for the default tier has above_input_tokens = 0",
        ),
        (ROW + FREE_ROW, "prices: openai/gpt-4o: it is free, so it can have no other row"),
        (FREE_ROW + "request_usd = 1", "a free model has no prices, tiers or steps"),
        (FREE_ROW + "service_tier = 'flex'", "a free model has no prices, tiers or steps"),
        (FREE_ROW.replace("true", "false"), "or free = true for a model that costs nothing"),
        (ROW.replace("output_usd_per_million = 8", ""), "or free = true for a model that costs"),
        (ROW + "service_tier = 'batch'", "prices[0].service_tier: Input should be"),
        (ROW.replace("openai", "azure"), "prices: azure/gpt-4o: no provider 'azure'"),
        ("[call_types.'a b']", "call_types.a b: a request cannot have this name"),
        ("[providers.'x y']", "providers.x y: a request cannot have this name"),
        (
            "[default]\nmax_output_tokens_default = 20_000",
            "default.max_output_tokens_default: 20000 is over max_output_tokens_max 16384",
        ),
        (
            "[call_types.a]\nretry_wait_s = 90",
            "call_types.a.retry_wait_s: 90.0 is over retry_wait_max_s 60.0",
        ),
        (
            "[call_types.a]\nmodels = ['gpt-4o']",
            "call_types.a.models: 'gpt-4o' is not provider/model",
        ),
        (
            "[call_types.a]\nmodels = ['openai']",
            "call_types.a.models: 'openai' is not provider/model",
        ),
        ("[call_types.a]\nmodels = ['opnai/*']", "call_types.a.models: 'opnai/*' is not provider/"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(written: Path, text: str, says: str) -> None:
    written.write_text(text)

    with pytest.raises(ConfigurationError) as raised:
        load_catalogue(written)

    assert str(written) in str(raised.value)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "field",
    ["prompt_cache_retention", "Cache_Control", "prediction", "search_parameters", "extra_body"],
)
def test_no_extra_field_may_change_the_price(written: Path, field: str) -> None:
    """The hold would not cover it."""
    written.write_text(f"[providers.p]\nextra_fields = ['{field}']")

    with pytest.raises(ConfigurationError, match=f"cannot have {field}"):
        load_catalogue(written)


def test_every_mistake_is_named_at_once(written: Path) -> None:
    written.write_text("[default]\ndeadline_s = 0\npages_max = -1\n[providers.openai]\nkey = 'x'")

    with pytest.raises(ConfigurationError) as raised:
        load_catalogue(written)

    for key in ("default.deadline_s", "default.pages_max", "providers.openai.key"):
        assert key in str(raised.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_file_is_named(written: Path, content: bytes | None) -> None:
    """Missing, or not UTF-8."""
    if content is not None:
        written.write_bytes(content)

    with pytest.raises(ConfigurationError, match="cannot be read") as raised:
        load_catalogue(written)

    assert str(written) in str(raised.value)


def test_a_provider_declares_good_endings_and_wrappings(written: Path) -> None:
    written.write_text(
        '[providers.odd]\ngood_endings = ["eos", "null"]\nunwraps = ["think", "fence"]\n'
    )

    entry = load_catalogue(written).providers["odd"]

    assert (entry.good_endings, entry.unwraps) == (("eos", "null"), ("think", "fence"))
    assert Catalogue().providers["openai"].unwraps == ()


def test_a_provider_declares_whose_headers_with_limits_it_sends(written: Path) -> None:
    written.write_text('[providers.fast]\nrate_limit_headers = "groq"\n')

    assert load_catalogue(written).providers["fast"].rate_limit_headers == "groq"
    assert Catalogue().providers["openai"].rate_limit_headers == "openai"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            'good_endings = ["length"]',
            "providers.odd.good_endings: .*length cannot be a good ending",
        ),
        ('good_endings = [""]', r"providers.odd.good_endings\[0\]"),
        ('unwraps = ["xml"]', r"providers.odd.unwraps\[0\]"),
    ],
)
def test_invalid_endings_and_wrappings_are_refused(
    written: Path, line: str, complaint: str
) -> None:
    """A typing error must not make half an answer a success."""
    written.write_text(f"[providers.odd]\n{line}\n")

    with pytest.raises(ConfigurationError, match=complaint):
        load_catalogue(written)
