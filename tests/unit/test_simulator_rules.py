"""The simulator's pure parts: the script's order, schema instances, and the book's arithmetic."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from devkit.simulator.chat import BadRequest, ChatRequest, reply_to
from devkit.simulator.journal import RequestJournal
from devkit.simulator.schema import SchemaUnsatisfied, instance
from devkit.simulator.script import (
    RULES,
    Kind,
    Lognormal,
    Match,
    ReportedUsage,
    Rule,
    Script,
    Step,
    Uniform,
)


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    label: Annotated[str, Field(min_length=5)]
    quantity: Annotated[int, Field(gt=0, le=9)]
    price: Decimal


class Invoice(BaseModel):
    kind: Literal["invoice"]
    number: uuid.UUID
    issued_on: datetime.date
    issued_at: datetime.datetime
    colour: Colour
    lines: Annotated[list[Line], Field(min_length=2)]
    discount: Annotated[float, Field(gt=0, lt=1)]
    below_zero: Annotated[int, Field(le=-5, multiple_of=2)]
    note: Annotated[str, Field(max_length=1)] | None
    labels: dict[str, int]
    is_paid: bool


class Tree(BaseModel):
    value: int
    children: list[Tree]
    parent: Tree | None


def a_request(**fields: Any) -> ChatRequest:
    """Build a parsed request for model "m" whose user says "hello"."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}
    return ChatRequest.parse(json.dumps(body).encode())


def completion_of(request: ChatRequest, step: Step) -> dict[str, Any]:
    """Return the decoded body of a step's answer."""
    completion: dict[str, Any] = json.loads(reply_to(request, step).body)
    return completion


def texts_of(script: Script, requests: int, model: str = "m", text: str = "") -> list[str | None]:
    """Return the scripted texts of the next answers."""
    return [script.next_step(model, text)[0].text for _ in range(requests)]


def test_the_last_step_of_a_rule_repeats() -> None:
    """The k-th matching request gets the k-th step, and later ones the last."""
    script = Script([Rule(reply=[Step(text="first"), Step(text="second")])])

    assert texts_of(script, 4) == ["first", "second", "second", "second"]


def test_the_first_matching_rule_answers() -> None:
    """Rules are tried in order, and each counts only the requests it answered."""
    script = Script(
        [
            Rule(match=Match(model="big"), reply=[Step(text="big 1"), Step(text="big 2")]),
            Rule(match=Match(text="please"), reply=[Step(text="polite")]),
            Rule(reply=[Step(text="rest")]),
        ]
    )

    assert texts_of(script, 1, model="big", text="please") == ["big 1"]
    assert texts_of(script, 1, text="yes please") == ["polite"]
    assert texts_of(script, 1, text="now") == ["rest"]
    assert texts_of(script, 1, model="big") == ["big 2"]


def test_a_request_that_no_rule_matches_is_answered_correctly_at_once() -> None:
    """A script names the exceptions; everything else just works."""
    script = Script([Rule(match=Match(model="other"), reply=[Step(kind=Kind.HANG)])])

    assert script.next_step("m", "") == (Step(), 0.0)


def test_a_probability_draws_the_same_requests_in_every_run() -> None:
    """A seed makes a random script repeatable, and another seed draws other requests."""

    def drawn(seed: int) -> list[str | None]:
        rule = Rule(match=Match(probability=0.3), reply=[Step(text="drawn")], seed=seed)
        return texts_of(Script([rule]), 1_000)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert 250 < drawn(1).count("drawn") < 350


@pytest.mark.parametrize(
    ("latency", "low_s", "high_s"),
    [
        (0.25, 0.25, 0.25),
        (Uniform(low_s=0.1, high_s=0.2), 0.1, 0.2),
        (Lognormal(median_s=1, sigma=1, max_s=1.5), 0.01, 1.5),
    ],
)
def test_a_latency_stays_within_its_bounds(
    latency: float | Uniform | Lognormal, low_s: float, high_s: float
) -> None:
    """Whatever the distribution, no draw leaves the bounds that the script gives."""
    script = Script([Rule(reply=[Step(latency_s=latency)], seed=7)])

    drawn_s = [script.next_step("m", "")[1] for _ in range(500)]

    assert low_s <= min(drawn_s) <= max(drawn_s) <= high_s


@pytest.mark.parametrize(
    "rule",
    [
        {"reply": []},
        {"reply": [{"kind": "explode"}]},
        {"reply": [{"kind": "ok", "status": 500}]},
        {"reply": [{"kind": "status", "status": 307}]},
        {"reply": [{"latency_s": {"low_s": 2, "high_s": 1}}]},
        {"reply": [{"latency": 1}]},
        {"match": {"probability": 2}, "reply": [{}]},
    ],
)
def test_a_malformed_rule_is_refused(rule: dict[str, Any]) -> None:
    """A misspelt script must not pass for one that injects no faults."""
    with pytest.raises(ValidationError):
        RULES.validate_python([rule])


@pytest.mark.parametrize("model", [Invoice, Line, Tree])
def test_an_instance_satisfies_its_schema(model: type[BaseModel]) -> None:
    """What is generated from a schema passes the validation the schema was made from."""
    generated = instance(model.model_json_schema())

    model.model_validate_json(json.dumps(generated))
    assert generated == instance(model.model_json_schema())


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "minimum": 4, "multipleOf": 3}, 6),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "maximum": -2.5}, -2.5),
        ({"type": ["string", "null"], "format": "email"}, "ok@example.com"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 3}, [None] * 3),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, []),
        ({"$defs": {"a/b": {"const": 7}}, "$ref": "#/$defs/a~1b"}, 7),
        ({"anyOf": [{"enum": ["x", "y"]}, {"type": "null"}]}, "x"),
        ({"properties": {"flag": {"type": "boolean"}}}, {"flag": False}),
    ],
)
def test_an_instance_is_the_smallest_that_is_allowed(
    schema: dict[str, Any], expected: object
) -> None:
    """Each keyword of structured outputs has one obvious, small value."""
    assert instance(schema) == expected


def test_an_optional_recursion_comes_to_an_end() -> None:
    """A property that need not be there is left out once the instance is deep enough."""
    chain = instance({"type": "object", "properties": {"next": {"$ref": "#"}}})

    assert "next" in chain
    assert json.dumps(chain).endswith("{}" + "}" * json.dumps(chain).count('"next"'))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/missing"},
        {"$ref": "#"},
        {"type": "object", "required": ["me"], "properties": {"me": {"$ref": "#"}}},
        {"type": "array", "minItems": 1_000_000},
        {"type": "string", "minLength": 10**12},
        {"enum": []},
        {"type": "integer", "multipleOf": 0},
    ],
)
def test_a_schema_without_an_instance_is_refused(schema: dict[str, Any]) -> None:
    """A schema that cannot be satisfied ends in a typed error, in bounded time and memory."""
    with pytest.raises(SchemaUnsatisfied):
        instance(schema)


def test_prompt_tokens_are_a_quarter_of_the_text_bytes_rounded_up() -> None:
    """Usage is computed from the text of all messages, in UTF-8, images not counted."""
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    request = a_request(
        messages=[
            {"role": "system", "content": "äöü"},
            {"role": "user", "content": [{"type": "text", "text": "abc"}, image]},
        ]
    )

    usage = completion_of(request, Step())["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 1, 4)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_text_beyond_the_token_limit_is_cut_in_every_choice(field: str) -> None:
    """Computed completion tokens never exceed choices times the limit that was sent."""
    completion = completion_of(a_request(**{field: 2}, n=3), Step(text="x" * 100))

    assert [len(choice["message"]["content"]) for choice in completion["choices"]] == [8, 8, 8]
    assert {choice["finish_reason"] for choice in completion["choices"]} == {"length"}
    assert completion["usage"]["completion_tokens"] == 6


def test_scripted_usage_is_reported_as_it_is() -> None:
    """A provider that bills more than the request allowed can be played."""
    usage = ReportedUsage(
        prompt_tokens=7, completion_tokens=900, cached_tokens=5, reasoning_tokens=300
    )

    reported = completion_of(a_request(max_tokens=10), Step(usage=usage))["usage"]

    assert (reported["prompt_tokens"], reported["completion_tokens"]) == (7, 900)
    assert reported["prompt_tokens_details"]["cached_tokens"] == 5
    assert reported["completion_tokens_details"]["reasoning_tokens"] == 300


@pytest.mark.parametrize(
    ("asked", "scripted", "answered"),
    [
        (None, None, "default"),
        ("auto", None, "default"),
        ("flex", None, "flex"),
        ("flex", "priority", "priority"),
    ],
)
def test_the_service_tier_is_the_requested_one_unless_scripted(
    asked: str | None, scripted: str | None, answered: str
) -> None:
    """The answered tier may differ from the requested one, and "auto" is never answered."""
    completion = completion_of(a_request(service_tier=asked), Step(service_tier=scripted))

    assert completion["service_tier"] == answered


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"messages": None},
        {"messages": ["hello"]},
        {"n": 0},
        {"n": 1_000_000},
        {"max_tokens": 0},
        {"max_tokens": "10"},
    ],
)
def test_a_malformed_request_is_refused(fields: dict[str, Any]) -> None:
    """What a provider would answer with 400 never gets a correct answer here."""
    with pytest.raises(BadRequest):
        a_request(**fields)


def test_the_book_counts_repeated_attempt_ids() -> None:
    """A second request under one attempt id shows, whatever became of either."""
    book = RequestJournal()
    for attempt_id in ("a", "b", "a", None, None):
        book.decided(book.arrived(attempt_id), "m", Kind.OK)
    book.finished(0, 200)
    counts = book.counts()

    assert (counts.total, counts.attempt_ids, counts.repeated) == (5, 2, {"a": 2})
    assert (counts.in_flight, counts.in_flight_max) == (4, 5)
    assert [record.status for record in book.records(0, 2)] == [200, None]


def test_the_book_counts_on_past_its_bound() -> None:
    """Memory is bounded, and what was forgotten is said instead of silently missing."""
    book = RequestJournal(requests_max=2)
    for _ in range(5):
        number = book.arrived("a")
        book.decided(number, "m", Kind.OK)
        book.finished(number, 200)
    counts = book.counts()

    assert (counts.total, counts.forgotten, counts.repeated) == (5, 3, {"a": 2})
    assert len(book.records(0, 100)) == 2
