"""
Tests of the pipeline with callgate's testing kit: no servers, no model, no cost.

    python -m pytest examples/test_extraction.py
"""

import json
from pathlib import Path

import pytest

from callgate import CallFailed, LLMRequest
from callgate.testing import MemoryClient, Refusal
from examples.extraction import Document, ExtractedDocument, load_documents, prompt, score

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
DOCUMENTS = {document.name: document for document in load_documents(HERE / "documents")}
RIGHT = ExtractedDocument(
    supplier="Brightwater Ltd", number="INV-7", date="2026-03-14", currency="EUR", total="120.00"
)


def request_for(document: Document) -> LLMRequest:
    """The request of one document."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=prompt(document),
        response_schema=ExtractedDocument,
        max_output_tokens=300,
        document_pages=document.pages,
        temperature=0,
    )


def test_every_document_is_extracted_once(callgate_client: MemoryClient) -> None:
    callgate_client.script.reply(RIGHT)
    requests = [request_for(document) for document in DOCUMENTS.values()]

    handles = callgate_client.submit_many([*requests, *requests])
    parsed = [handle.get().parsed for handle in callgate_client.as_completed(handles)]

    assert parsed == [RIGHT] * (2 * len(DOCUMENTS))
    assert len(callgate_client.sent) == len(DOCUMENTS)
    assert callgate_client.cost_usd > 0


def test_an_answer_is_scored_however_it_is_written(callgate_client: MemoryClient) -> None:
    name, expected = next(iter(EXPECTED.items()))
    fields = {field: str(expected[field]) for field in ExtractedDocument.model_fields}
    callgate_client.script.reply(fields)

    extracted = callgate_client.submit(request_for(DOCUMENTS[name])).get().parsed

    assert all(score(extracted, expected).values())


def test_a_bad_answer_is_repaired_and_a_refused_document_fails(
    callgate_client: MemoryClient,
) -> None:
    good, bad = list(DOCUMENTS.values())[:2]
    callgate_client.script.reply('{"supplier": "?"}', RIGHT, match=good.text[:40])
    callgate_client.script.reply(Refusal(400, code="context_length_exceeded"))

    assert callgate_client.submit(request_for(good)).get().attempts == 2
    with pytest.raises(CallFailed) as caught:
        callgate_client.submit(request_for(bad)).get()
    assert caught.value.failure_code == "context_length_exceeded"
