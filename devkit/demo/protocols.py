"""The sixth scenario: the same documents through other protocols, with one string changed."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

from callgate.domain import requests
from callgate.domain.budgets import usd
from callgate.domain.requests import LLMResult
from devkit.demo.documents import EXAMPLES, request_for
from devkit.demo.scenario import SHORT_TIMEOUT_S, DemoRun, expect
from devkit.simulator.simulator import Match, ReportedUsage, Rule, Step
from examples.extraction import Document, ExtractedDocument, load_documents

MODEL = "assistant"
USED = requests.Usage(input_tokens=300, output_tokens=60)
"""The usage of each answer."""
NANO_USD_BY_HAND = {
    # gpt-5.5: 5 and 30 USD per million tokens, so (300 x 5 + 60 x 30) x 1,000.
    "simulated_chat": 3_300_000,
    "simulated_responses": 3_300_000,
    # claude-opus-5: 5 and 25, so (300 x 5 + 60 x 25) x 1,000.
    "simulated_messages": 3_000_000,
}
"""By provider: what each answer costs. docs/prices.md has the sources."""


def extract_in_each_protocol(run: DemoRun) -> None:
    """Extract every example document through each protocol of the simulated provider, and compare costs and answers."""
    documents = load_documents(EXAMPLES / "documents")
    expected = json.loads((EXAMPLES / "expected.json").read_text("utf-8"))
    right = [ExtractedDocument(**_answer(expected[document.name])) for document in documents]
    with run.console.scenario("6  The same documents through three protocols"):
        run.environment.simulator.script(_rules(documents, right))
        for provider, by_hand in NANO_USD_BY_HAND.items():
            handles = run.submit([request_for(run, d, provider, MODEL) for d in documents])
            run.wait(handles, f"Asking {provider}", SHORT_TIMEOUT_S)
            results = [handle.get(timeout=0) for handle in handles]
            _check(run, provider, results, right, by_hand)
        run.environment.simulator.script([])


def _check(
    run: DemoRun,
    provider: str,
    results: Sequence[LLMResult],
    right: Sequence[ExtractedDocument],
    by_hand: int,
) -> None:
    same = sum(result.parsed == answer for result, answer in zip(results, right, strict=True))
    expect(same == len(right), f"{len(right)} answers of {provider} as scripted", f"{same} were")
    costs = {int(result.cost_usd * 10**9) for result in results}
    expect(costs == {by_hand}, f"each call to cost {usd(by_hand)}", f"they cost {sorted(costs)}")
    run.console.fact(
        f"{provider}: {same} answers as scripted, each for {usd(by_hand)}, as worked out by hand"
    )


def _answer(expected: Mapping[str, str]) -> dict[str, str]:
    """What is right of a document, as a model would write it: amounts have two decimals."""
    fields = {name: expected[name] for name in ExtractedDocument.model_fields}
    return {**fields, "total": f"{Decimal(fields['total']):.2f}"}


def _rules(documents: Sequence[Document], right: Sequence[ExtractedDocument]) -> list[Rule]:
    """One rule for each document, which is recognised by its own text."""
    usage = ReportedUsage(prompt_tokens=USED.input_tokens, completion_tokens=USED.output_tokens)
    return [
        Rule(
            match=Match(model=MODEL, text=document.text),
            reply=[Step(text=answer.model_dump_json(), usage=usage)],
        )
        for document, answer in zip(documents, right, strict=True)
    ]
