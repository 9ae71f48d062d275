"""
A pipeline of documents: each call is submitted with a link, and the pipeline's own worker stores the answers.

    celery -A examples.document_pipeline worker --loglevel INFO
    python -m examples.document_pipeline examples/documents

Nobody waits: the program ends after submitting. The links come when the calls end, also after a crash of either side.
Run it again: what is answered is not paid again, and its links come again.
"""

import os
import sys
from pathlib import Path

from celery import Celery

from callgate import CallgateError, Client, LLMRequest
from examples.extraction import Document, ExtractedDocument, load_documents, prompt

FOLDER = Path(os.environ.get("EXAMPLE_FOLDER", "extracted"))

client = Client.from_env()  # connects when it is used, in each process of a worker
app = Celery("document_pipeline", broker=client.settings.broker_url.get_secret_value())
app.conf.task_default_queue = "documents"


@app.task(name="documents.store")
def store(outcome: dict[str, str], name: str) -> None:
    """Write the data of a document. A link may come twice: then the same file is written twice."""
    result = client.handle(outcome["task_id"], ExtractedDocument).get()
    (FOLDER / f"{name}.json").write_text(result.parsed.model_dump_json(indent=2), encoding="utf-8")


@app.task(name="documents.report")
def report(outcome: dict[str, str], name: str) -> None:
    """Write why a document has no data."""
    try:
        client.handle(outcome["task_id"]).get()
    except CallgateError as error:
        (FOLDER / f"{name}.error").write_text(f"{error.code}: {error}\n", encoding="utf-8")


def request_for(document: Document) -> LLMRequest:
    """The request of one document."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=prompt(document),
        response_schema=ExtractedDocument,
        document_pages=document.pages,
    )


def main(folder: Path) -> None:
    """Submit every document of a folder."""
    FOLDER.mkdir(exist_ok=True)
    for document in load_documents(folder):
        name = document.name
        handle = client.submit(request_for(document), link=store.s(name), link_error=report.s(name))
        print(name, handle.task_id, "known already" if handle.collapsed else "new")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
