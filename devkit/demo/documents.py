"""The first two scenarios: extract data from documents, and submit the same batch again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from callgate import LLMRequest, Message
from callgate.client import Handle
from callgate.domain.budgets import usd
from callgate.domain.errors import CallgateError
from callgate.domain.requests import LLMResult
from devkit.demo.environment import DemoFailed
from devkit.demo.scenario import ORG, DemoRun, expect
from examples.extraction import Document, ExtractedDocument, load_documents, prompt, score

EXAMPLES = Path(__file__).parents[2] / "examples"
FIELDS = ("supplier", "number", "date", "total")
SHARES = {"Supplier": 22, "Number": 18, "Date": 17, "Total": 13}
"""The columns of `FIELDS`, and the ratios in which they share the width."""
TIMEOUT_S = 1_200.0
AGAIN_TIMEOUT_S = 30.0


def extract(run: DemoRun) -> list[LLMRequest]:
    """Extract the fields of every example document, and mark those that are wrong."""
    documents = load_documents(EXAMPLES / "documents")
    requests = [request_for(run, document) for document in documents]
    pages = sum(document.pages for document in documents)
    with run.console.scenario(f"1  {len(documents)} documents, {pages} pages, extracted"):
        before = run.environment.requests_sent()
        handles = run.submit(requests)
        run.wait(handles, "Reading documents", TIMEOUT_S)
        results = [_result(handle, d) for handle, d in zip(handles, documents, strict=True)]
        _show(run, documents, results)
        sent, attempts = (
            run.environment.requests_sent() - before,
            sum(result.attempts for result in results),
        )
        expect(sent == attempts, f"{attempts} provider requests", f"{sent} were sent")
        run.console.fact(
            f"{len(results)} calls succeeded with {sent} provider requests, for {_spent(results)}"
        )
    return requests


def extract_again(run: DemoRun, requests: Sequence[LLMRequest]) -> None:
    """Submit the batch again: every result comes from the ledger."""
    with run.console.scenario(f"2  The same {len(requests)} documents submitted again"):
        before = run.environment.requests_sent()
        handles = run.submit(requests)
        run.wait(handles, "Reading documents", AGAIN_TIMEOUT_S)
        results = [handle.get(timeout=0) for handle in handles]
        collapsed = sum(handle.collapsed for handle in handles)
        sent = run.environment.requests_sent() - before
        expect(collapsed == len(handles), "every submission to collapse", f"{collapsed} did")
        expect(sent == 0, "no provider request", f"{sent} were sent")
        run.console.fact(f"{len(results)} results from the ledger, 0 provider requests")


def request_for(
    run: DemoRun, document: Document, provider: str | None = None, model: str | None = None
) -> LLMRequest:
    """Return the extraction call of a document, for the demo's model or for another one."""
    return LLMRequest(
        org_id=ORG,
        call_type="extraction",
        provider=provider or run.environment.provider,
        model=model or run.environment.model,
        messages=tuple(Message.model_validate(turn) for turn in prompt(document)),
        response_schema=ExtractedDocument,
        document_pages=document.pages,
        temperature=0.0,
    )


def held_out_request(run: DemoRun) -> LLMRequest:
    """Return a call that was not made yet: the shortest document with an additional line."""
    shortest = min(load_documents(EXAMPLES / "documents"), key=lambda d: len(d.text))
    return request_for(run, replace(shortest, text=f"{shortest.text}\n\nSecond copy."))


def _result(handle: Handle, document: Document) -> LLMResult:
    try:
        return handle.get(timeout=0)
    except CallgateError as exc:
        raise DemoFailed(f"expected a result for {document.name}, but {exc}") from exc


def _show(run: DemoRun, documents: Sequence[Document], results: Sequence[LLMResult]) -> None:
    expected = json.loads((EXAMPLES / "expected.json").read_text())
    rows: list[list[Text | str]] = []
    correct = 0
    for document, result in zip(documents, results, strict=True):
        matches = score(result.parsed, expected[document.name])
        correct += sum(matches[name] for name in FIELDS)
        cells = [_cell(str(getattr(result.parsed, name)), matches[name]) for name in FIELDS]
        rows.append([document.name, str(document.pages), *cells])
    run.console.table(
        ("Document", "Pages", *SHARES), rows, right=[1], shares={"Document": 32, **SHARES}
    )
    run.console.fact(
        f"{correct} of {len(results) * len(FIELDS)} fields are correct; ≠ marks the errors of {run.environment.model}"
    )


def _cell(value: str, is_correct: bool) -> Text:
    return Text(f"  {value}") if is_correct else Text(f"≠ {value}", "yellow")


def _spent(results: Sequence[LLMResult]) -> str:
    return usd(int(sum(result.cost_usd for result in results) * 10**9))
