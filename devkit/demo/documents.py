"""The first two acts: documents into data, and the same batch again for nothing."""

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
from devkit.demo.progress import ORG, DemoProgress, expect
from examples.extraction import Document, ExtractedDocument, load_documents, prompt, score

EXAMPLES = Path(__file__).parents[2] / "examples"
FIELDS = ("supplier", "number", "date", "total")
SHARES = {"Supplier": 22, "Number": 18, "Date": 17, "Total": 13}
"""The columns of `FIELDS`, and how they share the width of the screen."""
TIMEOUT_S = 1_200.0
AGAIN_TIMEOUT_S = 30.0


def extract(play: DemoProgress) -> list[LLMRequest]:
    """Extract the fields of every example document; show what is right and what is not."""
    documents = load_documents(EXAMPLES / "documents")
    requests = [request_for(play, document) for document in documents]
    pages = sum(document.pages for document in documents)
    with play.screen.act(f"1  {len(documents)} documents, {pages} pages, into data"):
        before = play.stage.sent()
        handles = play.submit(requests)
        play.wait(handles, "Reading documents", TIMEOUT_S)
        results = [_result(handle, d) for handle, d in zip(handles, documents, strict=True)]
        _show(play, documents, results)
        sent, attempts = play.stage.sent() - before, sum(result.attempts for result in results)
        expect(sent == attempts, f"{attempts} provider requests", f"{sent} were sent")
        play.screen.fact(
            f"{len(results)} calls succeeded with {sent} provider requests, for {_spent(results)}"
        )
    return requests


def extract_again(play: DemoProgress, requests: Sequence[LLMRequest]) -> None:
    """Submit the batch a second time: every call is answered from the ledger."""
    with play.screen.act(f"2  The same {len(requests)} documents again"):
        before = play.stage.sent()
        handles = play.submit(requests)
        play.wait(handles, "Reading documents", AGAIN_TIMEOUT_S)
        results = [handle.get(timeout=0) for handle in handles]
        collapsed = sum(handle.collapsed for handle in handles)
        sent = play.stage.sent() - before
        expect(collapsed == len(handles), "every submission to collapse", f"{collapsed} did")
        expect(sent == 0, "no provider request", f"{sent} were sent")
        play.screen.fact(f"{len(results)} results from the ledger, 0 provider requests")


def request_for(play: DemoProgress, document: Document) -> LLMRequest:
    """One extraction call."""
    return LLMRequest(
        org_id=ORG,
        call_type="extraction",
        provider=play.stage.provider,
        model=play.stage.model,
        messages=tuple(Message.model_validate(turn) for turn in prompt(document)),
        response_schema=ExtractedDocument,
        document_pages=document.pages,
        temperature=0.0,
    )


def unseen(play: DemoProgress) -> LLMRequest:
    """A call that nobody made before: the shortest document, with a line that it did not have."""
    shortest = min(load_documents(EXAMPLES / "documents"), key=lambda d: len(d.text))
    return request_for(play, replace(shortest, text=f"{shortest.text}\n\nSecond copy."))


def _result(handle: Handle, document: Document) -> LLMResult:
    try:
        return handle.get(timeout=0)
    except CallgateError as exc:
        raise DemoFailed(f"expected {document.name} to be read, but {exc}") from exc


def _show(play: DemoProgress, documents: Sequence[Document], results: Sequence[LLMResult]) -> None:
    expected = json.loads((EXAMPLES / "expected.json").read_text())
    rows: list[list[Text | str]] = []
    right = 0
    for document, result in zip(documents, results, strict=True):
        matches = score(result.parsed, expected[document.name])
        right += sum(matches[name] for name in FIELDS)
        cells = [_cell(str(getattr(result.parsed, name)), matches[name]) for name in FIELDS]
        rows.append([document.name, str(document.pages), *cells])
    play.screen.table(
        ("Document", "Pages", *SHARES), rows, right=[1], shares={"Document": 32, **SHARES}
    )
    play.screen.fact(
        f"{right} of {len(results) * len(FIELDS)} fields are right; ≠ marks what {play.stage.model} got wrong"
    )


def _cell(value: str, is_right: bool) -> Text:
    return Text(f"  {value}") if is_right else Text(f"≠ {value}", "yellow")


def _spent(results: Sequence[LLMResult]) -> str:
    return usd(int(sum(result.cost_usd for result in results) * 10**9))
