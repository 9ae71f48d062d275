"""The simulator's pure parts: the order of the script, the default answers, the counts of the request journal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from devkit.simulator.chat import BadRequest, ChatRequest, reply_to
from devkit.simulator.journal import RequestJournal
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


def a_request(**fields: Any) -> ChatRequest:
    """Build a parsed request for model "m" whose user says "hello"."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}
    return ChatRequest.parse(json.dumps(body).encode())


def completion_of(request: ChatRequest, step: Step) -> dict[str, Any]:
    """Return the decoded body of a step's answer."""
    completion: dict[str, Any] = json.loads(reply_to(request, step).body)
    return completion


def default_text(response_format: dict[str, Any]) -> str:
    """Return the text that answers a request without a script."""
    completion = completion_of(a_request(response_format=response_format), Step())
    return str(completion["choices"][0]["message"]["content"])


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


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {
                "properties": {
                    "a": {"type": "string"},
                    "b": {"type": "integer"},
                    "c": {"type": "number"},
                    "d": {"type": "boolean"},
                    "e": {"type": "array"},
                    "f": {"type": "object"},
                    "g": {"$ref": "#/$defs/g"},
                    "h": True,
                }
            },
            {"a": "ok", "b": 0, "c": 0, "d": False, "e": [], "f": {}, "g": None, "h": None},
        ),
        ({"properties": []}, {}),
        (True, {}),
    ],
)
def test_a_schema_is_answered_property_by_property(schema: object, expected: object) -> None:
    """A malformed schema is answered too: whether it is refused is decided before it is sent."""
    response_format = {"type": "json_schema", "json_schema": {"schema": schema}}

    assert json.loads(default_text(response_format)) == expected


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
    """A provider can bill more than the request allowed."""
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


def test_the_journal_counts_repeated_attempt_ids() -> None:
    """A second request with the same attempt id is counted as repeated, also while both are in flight."""
    journal = RequestJournal()
    for attempt_id in ("a", "b", "a", None, None):
        journal.decided(journal.arrived(attempt_id), "m", Kind.OK)
    journal.finished(0, 200)
    counts = journal.counts()

    assert (counts.total, counts.attempt_ids, counts.repeated) == (5, 2, {"a": 2})
    assert (counts.in_flight, counts.in_flight_max) == (4, 5)
    assert [record.status for record in journal.records(0, 2)] == [200, None]


def test_the_journal_counts_on_past_its_bound() -> None:
    """Memory is bounded; requests past the bound are counted as forgotten."""
    journal = RequestJournal(requests_max=2)
    for _ in range(5):
        number = journal.arrived("a")
        journal.decided(number, "m", Kind.OK)
        journal.finished(number, 200)
    counts = journal.counts()

    assert (counts.total, counts.forgotten, counts.repeated) == (5, 3, {"a": 2})
    assert len(journal.records(0, 100)) == 2
