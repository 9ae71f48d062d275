"""The example documents: what `expected.json` says is in them, and `score` reads it however it is written."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from examples.extraction import (
    Document,
    ExtractedDocument,
    amount,
    iso_date,
    load_documents,
    prompt,
    score,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES_MAX = 80
FIELDS = ("supplier", "number", "date", "currency", "total")

# One or two words of each language that no other document has.
LANGUAGES = {
    "Chinese": "索赔",
    "Dutch": "Factuurnummer",
    "English": "Invoice number",
    "French": "Numéro de commande",
    "German": "Rechnungsnummer",
    "Italian": "Fornitore",
    "Japanese": "注文番号",
    "Polish": "Sprzedawca",
    "Spanish": "Fecha de emisión",
}
CURRENCY_SIGNS = {"CNY": "元", "EUR": "€", "GBP": "£", "JPY": "円", "PLN": "zł", "USD": "$"}
NUMBER = re.compile(r"\d{1,3}(?:[., ']\d{3})*(?:[.,]\d{2})?(?!\d)")


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    """Every example document by name."""
    return {document.name: document for document in load_documents(EXAMPLES / "documents")}


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    """What is right for each of them."""
    loaded: dict[str, dict[str, Any]] = json.loads((EXAMPLES / "expected.json").read_text("utf-8"))
    return loaded


def an_extraction(**values: str) -> ExtractedDocument:
    """One answer, right by default."""
    right = {"supplier": "Millrace & Söhne GmbH", "number": "RE 26-0417", "date": "14.03.2026"}
    return ExtractedDocument(**{**right, "currency": "EUR", "total": "1.234,56", **values})


EXPECTED = {
    "supplier": "Millrace & Söhne GmbH",
    "number": "RE 26-0417",
    "date": "2026-03-14",
    "currency": "EUR",
    "total": "1234.56",
}


def test_every_document_has_its_expectation(
    documents: dict[str, Document], expected: dict[str, dict[str, Any]]
) -> None:
    """No file is left out by the loader, and none lacks an entry."""
    files = {path.name for path in (EXAMPLES / "documents").iterdir()}

    assert files == set(documents) == set(expected)
    assert len(documents) >= 14


def test_pages_are_counted(
    documents: dict[str, Document], expected: dict[str, dict[str, Any]]
) -> None:
    """A PDF has its real pages; everything else is one."""
    counted = {name: document.pages for name, document in documents.items()}

    assert counted == {name: entry["pages"] for name, entry in expected.items()}
    assert sum(name.endswith(".pdf") and pages > 1 for name, pages in counted.items()) >= 3


def test_the_expected_values_stand_in_the_documents(
    documents: dict[str, Document], expected: dict[str, dict[str, Any]]
) -> None:
    """Supplier, number and currency literally; date and total in the format of the document's country."""
    for name, entry in expected.items():
        text = documents[name].text

        assert entry["supplier"].casefold() in text.casefold(), name
        assert entry["number"] in text, name
        assert entry["date"] in dates_in(text), name
        assert Decimal(entry["total"]) in amounts_in(text), name
        assert {entry["currency"], CURRENCY_SIGNS.get(entry["currency"])} & words_in(text), name


def test_every_kind_and_nine_languages_are_there(
    documents: dict[str, Document], expected: dict[str, dict[str, Any]]
) -> None:
    """The batch is a mixed one."""
    kinds = {entry["kind"] for entry in expected.values()}
    texts = [document.text for document in documents.values()]

    assert kinds == {"purchase_order", "invoice", "complaint", "credit_note"}
    assert all(any(word in text for text in texts) for word in LANGUAGES.values())


def test_nothing_in_them_can_be_reached(documents: dict[str, Document]) -> None:
    """Addresses of electronic mail are of the domain that is reserved for examples."""
    domains = {
        domain
        for document in documents.values()
        for domain in re.findall(r"@([\w.-]+\w)", document.text)
    }

    assert domains
    assert all(domain.endswith(".example.com") for domain in domains)


def test_the_expectations_fit_the_schema(expected: dict[str, dict[str, Any]]) -> None:
    """A perfect model could answer: no limit of a field excludes a right value."""
    for entry in expected.values():
        total = entry["total"] if "." in entry["total"] else entry["total"] + ".00"
        answer = ExtractedDocument(**{**{name: entry[name] for name in FIELDS}, "total": total})

        assert all(score(answer, entry).values())


def test_the_schema_is_strict() -> None:
    """Every field is required and no other is allowed: what strict structured output demands."""
    schema = ExtractedDocument.model_json_schema()

    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False


def test_the_prompt_asks_for_every_field_of_the_whole_document(
    documents: dict[str, Document],
) -> None:
    """The text is unabridged, and short enough for a small model."""
    for document in documents.values():
        [message] = prompt(document)

        assert document.text in message["content"]
        assert all(name in message["content"].rpartition("```")[2] for name in FIELDS)
        assert len(message["content"]) < 4_000


def test_score_sees_through_the_way_of_writing() -> None:
    """Case, separators and the order of a date do not matter."""
    answer = an_extraction(supplier="MILLRACE & SÖHNE  GMBH", number="RE-26-0417")

    assert score(answer, EXPECTED) == dict.fromkeys(FIELDS, True)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("supplier", "Millrace GmbH"),
        ("number", "RE 26-0418"),
        ("date", "15.03.2026"),
        ("currency", "USD"),
        ("total", "1.234,57"),
    ],
)
def test_score_marks_the_wrong_field(field: str, wrong: str) -> None:
    """One wrong value is one False, and the rest stands."""
    matches = score(an_extraction(**{field: wrong}), EXPECTED)

    assert matches == {name: name != field for name in FIELDS}


@pytest.mark.parametrize(
    "text",
    [
        *("2026-03-14", "2026-03-14T09:42:11Z", "14.03.2026", "14/03/2026", "14-03-2026"),
        *("March 14, 2026", "14 March 2026", "14. März 2026", "14 mars 2026", "2026年3月14日"),
    ],
)
def test_a_date_is_read_in_every_format(text: str) -> None:
    """ISO, numbers by day first, and months by name."""
    assert iso_date(text) == "2026-03-14"


@pytest.mark.parametrize("text", ["2026-00871", "31.02.2026", "soon", ""])
def test_what_is_no_date_stays_as_it_is(text: str) -> None:
    """A model may put anything into the field; scoring it must not fail."""
    assert iso_date(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.56", "1234.56"),
        ("1.234,56", "1234.56"),
        ("1 234,56", "1234.56"),
        ("1'234.56", "1234.56"),
        ("1234.5", "1234.5"),
        ("241,450", "241450"),
        ("12", "12"),
    ],
)
def test_an_amount_is_read_in_every_format(text: str, value: str) -> None:
    """The last separator is the decimal one if one or two digits follow it."""
    assert amount(text) == Decimal(value)


def test_no_number_is_no_amount() -> None:
    """Empty is not zero."""
    assert amount("n/a") is None


def test_an_email_is_read_without_its_plumbing(documents: dict[str, Document]) -> None:
    """The model pays by the token: only headers that a reader sees are kept."""
    text = documents["complaint-english.eml"].text

    assert text.startswith("From: Moira Ashdown")
    assert "MIME-Version" not in text


def test_other_files_are_left_out(tmp_path: Path) -> None:
    """A folder of documents may hold other things."""
    (tmp_path / "notes.docx").write_bytes(b"PK")
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "A.TXT").write_text("first")

    assert load_documents(tmp_path) == (
        Document("A.TXT", "first", 1),
        Document("b.txt", "second", 1),
    )


def dates_in(text: str) -> set[str]:
    """Every date that stands in a text, in ISO."""
    return {iso_date(found) for found in re.findall(r"\d[\d./-]{7,9}|\d+年\d+月\d+日", text)} | {
        iso_date(found)
        for found in re.findall(r"\d{1,2}\.? [^\W\d]+ \d{4}|[A-Z][a-z]+ \d{1,2}, \d{4}", text)
    }


def amounts_in(text: str) -> set[Decimal | None]:
    """Every number that stands in a text."""
    return {amount(found) for found in NUMBER.findall(text)}


def words_in(text: str) -> set[str]:
    """Words, and signs of currency."""
    return set(re.findall(r"[A-Z]{3}|zł|[€£$元円]", text))


def test_each_program_is_short_and_on_the_page() -> None:
    """They run in `tests/acceptance/test_example_programs.py`, the sixth one in `test_testing_page.py`."""
    page = (EXAMPLES / "README.md").read_text("utf-8")
    programs = {file.name for file in EXAMPLES.glob("*.py")} - {"__init__.py", "extraction.py"}

    assert programs == set(re.findall(r"^\| \[(\w+\.py)\]", page, re.MULTILINE))
    assert len(programs) == 6
    for name in programs:
        assert len((EXAMPLES / name).read_text("utf-8").splitlines()) <= LINES_MAX, name
