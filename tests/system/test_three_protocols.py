"""
The same pipeline through three protocols and a local model, with one string changed.

The simulator stands for the three providers: it answers what is scripted, and reports the scripted usage. Answers,
tokens and posted amounts are compared with the script and with bills that are worked out by hand here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from callgate import Client, LLMRequest, Message
from callgate.domain.requests import LLMResult, Usage
from devkit.local_model import LocalModel
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Match, ReportedUsage, Rule, Simulator, Step
from examples.extraction import Document, ExtractedDocument, load_documents, prompt, score
from tests.support.deployment import Deployment
from tests.support.three_protocols import CATALOGUE, MODEL, PROTOCOLS

LOCAL = "local"
PATIENCE_S = 600.0
EXAMPLES = Path(__file__).parents[2] / "examples"
DOCUMENTS = load_documents(EXAMPLES / "documents")
EXPECTED: dict[str, dict[str, Any]] = json.loads((EXAMPLES / "expected.json").read_text("utf-8"))
EXTRACTION = """
[call_types.extraction]
max_output_tokens_default = 600
deadline_s = 400

# The only changes for a server of one's own: where it is, and which model the name stands for there.
[providers.local]
preset = "llama_cpp"
base_url = "{model_url}"
models = {{ assistant = "{model}" }}

[[prices]]
provider = "local"
model = "{model}"
input_usd_per_million = 0.10
output_usd_per_million = 0.40
source = "made up for this test: nobody is billed"
as_of = 2026-11-01
"""
CORRECT_MIN = 32
"""Of 80 fields, by the local model: it is tiny. It had 41 when this was written."""


def extract(client: Client, org: str, provider: str) -> list[LLMResult]:
    """The pipeline: it gives every document to a provider. Nothing else in it knows which one."""
    requests = [
        LLMRequest(
            org_id=org,
            call_type="extraction",
            provider=provider,
            model=MODEL,
            messages=[Message.model_validate(turn) for turn in prompt(document)],
            response_schema=ExtractedDocument,
            document_pages=document.pages,
            temperature=0.0,
        )
        for document in DOCUMENTS
    ]
    handles = client.submit_many(requests)
    list(client.as_completed(handles, timeout=PATIENCE_S))
    return [handle.get(timeout=0) for handle in handles]


@dataclass(frozen=True)
class Bill:
    """The tokens of one answer, by what each costs."""

    plain: int
    cached: int
    written_5m: int
    written_1h: int
    said: int
    thought: int

    @property
    def usage(self) -> Usage:
        """As the ledger has it: parts are included in their whole."""
        return Usage(
            input_tokens=self.plain + self.cached + self.written_5m + self.written_1h,
            cached_input_tokens=self.cached,
            cache_write_tokens=self.written_5m + self.written_1h,
            cache_write_1h_tokens=self.written_1h,
            output_tokens=self.said + self.thought,
            reasoning_tokens=self.thought,
        )

    @property
    def reported(self) -> ReportedUsage:
        """As the simulator is told to report it."""
        usage = self.usage
        return ReportedUsage(
            prompt_tokens=usage.input_tokens,
            cached_tokens=usage.cached_input_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            completion_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )


def bill_of(protocol: str, number: int) -> Bill:
    """The bill of the document with this number. OpenAI reports no writes to its cache."""
    if protocol == "messages":
        return Bill(100 + number, 90, 80 + number, 70, 60 + number, 50)
    return Bill(200 + number, 90, 0, 0, 60 + number, 50)


def nano_usd_by_hand(protocol: str, bill: Bill) -> int:
    """
    What the answer costs, in nano-USD: tokens by USD per million tokens by 1,000.

    OpenAI, gpt-5.5: input 5, cached input 0.50, output and reasoning 30. Source:
    developers.openai.com/api/docs/models/gpt-5.5, verified by genai-prices 2026-10-12; half of the priority rates of
    openai.com/API-fast-mode, read 2026-11-29.

    Anthropic, claude-opus-5: input 5, read from the cache 0.50, written to it for five minutes 1.25 x 5, for an hour
    2 x 5, output and thinking 25. Source: platform.claude.com/docs/en/about-claude/pricing, read 2026-11-29.
    """
    if protocol == "messages":
        return (
            bill.plain * 5_000
            + bill.cached * 500
            + bill.written_5m * 6_250
            + bill.written_1h * 10_000
            + (bill.said + bill.thought) * 25_000
        )
    return bill.plain * 5_000 + bill.cached * 500 + (bill.said + bill.thought) * 30_000


# The first and the last document once more, as plain numbers.
BY_HAND = {
    # (200 x 5 + 90 x 0.50 + 110 x 30) x 1,000 and (215 x 5 + 90 x 0.50 + 125 x 30) x 1,000
    "chat": (4_345_000, 4_870_000),
    "responses": (4_345_000, 4_870_000),
    # (100 x 5 + 90 x 0.50 + 80 x 6.25 + 70 x 10 + 110 x 25) x 1,000
    # and (115 x 5 + 90 x 0.50 + 95 x 6.25 + 70 x 10 + 125 x 25) x 1,000
    "messages": (4_495_000, 5_038_750),
}


def answer_for(document: Document) -> dict[str, str]:
    """What the simulator extracts: what is right, with two decimals."""
    right = EXPECTED[document.name]
    right = {**right, "total": f"{Decimal(right['total']):.2f}"}
    return {name: str(right[name]) for name in ExtractedDocument.model_fields}


def script_for(protocol: str) -> list[Rule | dict[str, Any]]:
    """One rule for each document, which is recognised by its own text."""
    return [
        Rule(
            match=Match(text=document.text),
            reply=[
                Step(
                    text=json.dumps(answer_for(document), ensure_ascii=False),
                    usage=bill_of(protocol, number).reported,
                )
            ],
        )
        for number, document in enumerate(DOCUMENTS)
    ]


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def deployment(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Servers, a local model, a client, and one worker for all of this file."""
    folder = tmp_path_factory.mktemp("three-protocols")
    with ExitStack() as stack:
        model = stack.enter_context(LocalModel(folder))
        local = EXTRACTION.format(model_url=model.base_url, model=model.model)
        catalogue = CATALOGUE + local.replace("{", "{{").replace("}", "}}")
        running = Deployment(services, provider, folder, catalogue=catalogue)
        stack.enter_context(running)
        # The model answers one call at a time; the others wait in its queue while their deadlines run.
        bounds = {"CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S": "420", "CALLGATE_WORKER__CONCURRENCY": "4"}
        running.worker(**bounds)
        yield running


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_brings_the_scripted_answers_and_bills(
    deployment: Deployment, protocol: str
) -> None:
    """Results, tokens of every kind and nano-USD per attempt are those of the script and of the arithmetic."""
    org = deployment.org()
    deployment.provider.reset()
    deployment.provider.script(script_for(protocol))

    results = extract(deployment.client, org, protocol)

    right = [ExtractedDocument(**answer_for(document)) for document in DOCUMENTS]
    assert [result.parsed for result in results] == right
    bills = [bill_of(protocol, number) for number in range(len(DOCUMENTS))]
    amounts = [nano_usd_by_hand(protocol, bill) for bill in bills]
    assert [result.usage for result in results] == [bill.usage for bill in bills]
    assert (amounts[0], amounts[-1]) == BY_HAND[protocol]
    rows = {row.call_id: row for row in deployment.attempts(org)}
    posted = [rows[result.call_id] for result in results]
    assert [row.posted_nano_usd for row in posted] == amounts
    assert [figures_of(row) for row in posted] == [bill.usage for bill in bills]
    assert {(row.status, row.attempt) for row in posted} == {("succeeded", 1)}
    assert [row.posted_nano_usd <= row.hold_nano_usd for row in posted] == [True] * len(DOCUMENTS)
    assert deployment.provider.counts().total == len(DOCUMENTS) == len(rows)
    assert spent_by(deployment, org) == sum(amounts)
    deployment.assert_audit_is_clean()


@pytest.mark.timeout(PATIENCE_S + 60)
def test_a_local_model_answers_the_same_pipeline(deployment: Deployment) -> None:
    """Every answer fits the schema; how many fields are right is counted as the demo counts them."""
    org = deployment.org()

    results = extract(deployment.client, org, LOCAL)

    scores = [
        score(result.parsed, EXPECTED[document.name])
        for document, result in zip(DOCUMENTS, results, strict=True)
    ]
    correct = sum(sum(fields.values()) for fields in scores)
    assert all(isinstance(result.parsed, ExtractedDocument) for result in results)
    print(f"{correct} of {5 * len(scores)} fields are correct")  # noqa: T201 - shown with -rP
    assert correct >= CORRECT_MIN
    rows = deployment.attempts(org)
    assert {row.status for row in rows} == {"succeeded"}
    # 0.10 and 0.40 USD per million tokens, as the catalogue says.
    by_hand = [row.input_tokens * 100 + row.output_tokens * 400 for row in rows]
    assert [row.posted_nano_usd for row in rows] == by_hand
    assert all(row.input_tokens > 0 and row.output_tokens > 0 for row in rows)
    assert spent_by(deployment, org) == sum(by_hand)
    deployment.assert_audit_is_clean()


def figures_of(row: Any) -> Usage:
    """The tokens of a row of `ai_call_log`."""
    return Usage(**{name: getattr(row, name) or 0 for name in Usage.model_fields})


def spent_by(deployment: Deployment, org: str) -> int:
    """What the organisation's budgets have spent."""
    rows = deployment.rows("SELECT spent_nano_usd FROM budget WHERE org_id = :org", org=org)
    return sum(row.spent_nano_usd for row in rows)
