"""What a pipeline loads: the libraries of the client, and nothing that only workers or the command line need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
OF_WORKERS = {
    *("flower", "alembic", "tornado", "prometheus_client"),
    *("openai", "anthropic", "aiohttp", "tiktoken"),
}
OF_THE_COMMAND_LINE = {"typer", "rich", "structlog"}
AT_FIRST_USE = {"jsonschema_rs", "genai_prices", "httpx2", "nacl"}
"""A schema, a price that the catalogue does not have, copies of budgets that processes share."""
NOT_LOADED = OF_WORKERS | OF_THE_COMMAND_LINE

SUBMIT = """
import sys
from datetime import date
from callgate import Client, LLMRequest, Message
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.price_entry import PriceEntry
from callgate.settings import ClientSettings

class Queue:
    def publish_calls(self, keys, lane, *, traceparent=None):
        print(len(keys), "published", file=sys.stderr)

price = PriceEntry(provider="local", model="m", input_usd_per_million=1, output_usd_per_million=1,
    as_of=date(2026, 11, 1), source="test")
catalogue = Catalogue(providers={"local": ProviderEntry(base_url="http://127.0.0.1:1"), "openai": ProviderEntry()},
    prices=(price,))
settings = ClientSettings(database_url="postgresql://nobody@127.0.0.1:1/none", broker_url="redis://127.0.0.1:1/0")
client = Client(settings, ledger=MemoryLedger(), queue=Queue(), catalogue=catalogue)

def submit(provider, model):
    message = Message(role="user", content="Hello")
    handle = client.submit(LLMRequest(org_id="a", call_type="b", provider=provider, model=model, messages=[message],
        max_output_tokens=5))
    print(*{name.partition(".")[0] for name in sys.modules})

submit("local", "m")
submit("openai", "gpt-4o-mini")
"""


@pytest.fixture(scope="module")
def loaded() -> list[set[str]]:
    """The packages that are loaded after a submission with a price of the catalogue, and after one of the list."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", SUBMIT], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "1 published\n" * 2
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_a_pipeline_loads_nothing_of_workers_and_of_the_command_line(
    loaded: list[set[str]],
) -> None:
    for packages in loaded:
        assert packages & NOT_LOADED == set()


def test_what_a_first_use_needs_is_loaded_then(loaded: list[set[str]]) -> None:
    by_catalogue, by_list = loaded

    assert by_catalogue & AT_FIRST_USE == set()
    assert "genai_prices" in by_list
