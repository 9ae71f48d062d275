"""
Extract data from business documents: the part of a pipeline that is not callgate's.

    documents = load_documents(Path("examples/documents"))
    requests = [
        LLMRequest(..., messages=prompt(d), response_schema=ExtractedDocument, document_pages=d.pages)
        for d in documents
    ]

The model copies values as they are written in the document, and `score` makes them comparable. Small models copy much
better than they convert.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from email import message_from_bytes
from email.policy import default
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pypdf import PdfReader

EMAIL_HEADERS = ("From", "To", "Date", "Subject")


@dataclass(frozen=True)
class Document:
    """A document as text."""

    name: str
    text: str
    pages: int


class ExtractedDocument(BaseModel):
    """The data of one document."""

    # The limits keep every answer short. The descriptions are for models that read the schema.
    model_config = ConfigDict(extra="forbid")

    supplier: str = Field(
        min_length=3,
        max_length=50,
        description="The company that delivers, never the one that pays.",
    )
    number: str = Field(
        pattern=r"^[A-Z0-9]{1,12}([ ./-][A-Z0-9]{1,10}){0,3}$",
        description="The number of this document itself, not of one that it refers to.",
    )
    date: str = Field(
        min_length=8, max_length=20, description="The date of this document, as written in it."
    )
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")
    total: str = Field(
        pattern=r"^[0-9]{1,3}([., ']?[0-9]{3}){0,2}[.,][0-9]{2}$",
        description="The grand total including tax, as written, with two decimals.",
    )


def load_documents(folder: Path) -> tuple[Document, ...]:
    """Read every `.txt`, `.md`, `.eml` and `.pdf` file of a folder, in the order of their names."""
    return tuple(
        Document(path.name, *READERS[path.suffix.lower()](path))
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in READERS
    )


def prompt(document: Document) -> list[dict[str, str]]:
    """
    Ask for the fields in the order of the schema.

    The question follows the document, because small models answer the last part of a prompt best. There is no worked
    example: a base model would copy the example's values.
    """
    *most, last = ExtractedDocument.model_fields
    question = f"Extract {', '.join(most)} and {last} as JSON."
    return [{"role": "user", "content": f"```\n{document.text}\n```\n\n{question}"}]


def score(extracted: ExtractedDocument, expected: Mapping[str, object]) -> dict[str, bool]:
    """Say for each field whether it is right. Case, separators and date formats do not matter."""
    return {
        name: _comparable(name, getattr(extracted, name)) == _comparable(name, str(expected[name]))
        for name in ExtractedDocument.model_fields
    }


def iso_date(text: str) -> str:
    """
    Convert `2026-03-14`, `14.03.2026`, `March 14, 2026` or `2026年3月14日` to ISO; return other text unchanged.

    If two numbers could be the month, it is the second: `05/03/2026` is in March.
    """
    numbers = [int(digits) for digits in re.findall(r"[0-9]+", text)]
    month = MONTHS.get((re.findall(r"[^\W\d]{3}", text) or [""])[0].lower())
    match numbers:
        case [day, year] if month:
            parts = (year, month, day)
        case [year, second, day, *_] if year > 31:
            parts = (year, second, day)
        case [day, second, year, *_]:
            parts = (year, second, day)
        case _:
            return text
    try:
        return date(*parts).isoformat()
    except ValueError:
        return text


def amount(text: str) -> Decimal | None:
    """Read `1,234.56`, `1.234,56`, `1 234,56` or `1'234.56`; None if the text has no number."""
    digits = re.sub(r"[^0-9]", "", text)
    decimals = re.search(r"[.,]([0-9]{1,2})$", text.strip())
    return Decimal(int(digits)).scaleb(-len(decimals[1]) if decimals else 0) if digits else None


def _comparable(name: str, value: str) -> object:
    match name:
        case "date":
            return iso_date(value)
        case "total":
            return amount(value)
        case _:
            return re.sub(r"\W", "", value).casefold()


def _text(path: Path) -> tuple[str, int]:
    return path.read_text(encoding="utf-8"), 1


def _email(path: Path) -> tuple[str, int]:
    """Keep the headers that readers see, and the plain text."""
    message = message_from_bytes(path.read_bytes(), policy=default)
    headers = [f"{name}: {message[name]}" for name in EMAIL_HEADERS if message[name]]
    body = message.get_body(preferencelist=("plain",))
    return "\n".join([*headers, "", body.get_content() if body else ""]), 1


def _pdf(path: Path) -> tuple[str, int]:
    """Keep the cells of a table row on one line, so that a label stays beside its number."""
    pages = [page.extract_text(extraction_mode="layout") for page in PdfReader(path).pages]
    text = re.sub(r" {3,}", "  ", "\n".join(pages))
    return re.sub(r"\n\s*\n", "\n", text), len(pages)


READERS: dict[str, Callable[[Path], tuple[str, int]]] = {
    ".txt": _text,
    ".md": _text,
    ".eml": _email,
    ".pdf": _pdf,
}

_MONTHS = (
    "jan feb fév mar mär apr avr may mai jun jul aug aoû sep oct okt nov dec dez déc",
    "1   2   2   3   3   4   4   5   5   6   7   8   8   9   10  10  11  12  12  12",
)
MONTHS = dict(zip(_MONTHS[0].split(), map(int, _MONTHS[1].split()), strict=True))
"""Months by their first three letters in English, French and German, without `juin` and `juillet`."""
