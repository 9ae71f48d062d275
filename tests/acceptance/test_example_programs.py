"""The programs of `examples/`, run as their readers run them: real servers, a real worker."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Kind, Simulator, Step
from examples.extraction import ExtractedDocument, load_documents
from examples.three_providers import MODELS
from tests.support.deployment import CHECKOUT, Deployment, until_equal
from tests.support.programs import (
    EXAMPLES,
    PATIENCE_S,
    answers_by_hand,
    celery_worker,
    deployed,
    rule,
    run,
)

pytestmark = pytest.mark.long

REFUSED = Step(kind=Kind.STATUS, status=400)
INVOICE = json.dumps({"number": "INV-7", "total": 120})
RICH_NANO_USD = 5 * 10**9


@pytest.fixture(scope="module")
def standing(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment with the catalogue of the examples."""
    with deployed(services, provider, tmp_path_factory.mktemp("programs")) as deployment:
        yield deployment


def test_documents_are_stored_by_links(deployment: Deployment, tmp_path: Path) -> None:
    """One document is refused: its link says why. A second run pays for nothing."""
    names = {file.name for file in (EXAMPLES / "documents").iterdir()}
    refused = load_documents(EXAMPLES / "documents")[0]
    deployment.provider.script([rule(refused.text[:60], REFUSED), *answers_by_hand()])
    deployment.limit("acme", RICH_NANO_USD)
    environ = {"EXAMPLE_FOLDER": str(tmp_path)}
    worker = celery_worker(deployment, "examples.document_pipeline", CHECKOUT, **environ)
    program = ("-m", "examples.document_pipeline", "examples/documents")

    first = run(deployment, *program, **environ)
    expected = {f"{n}.json" for n in names - {refused.name}} | {f"{refused.name}.error"}
    until_equal(expected, lambda: {file.name for file in tmp_path.iterdir()}, PATIENCE_S)
    second = run(deployment, *program, **environ)

    assert (first.count(" new"), second.count(" known already")) == (len(names), len(names))
    assert deployment.provider.counts().total == len(names)
    stored = next(file for file in tmp_path.glob("*.json")).read_text()
    assert ExtractedDocument.model_validate_json(stored).supplier == "Brightwater Ltd"
    assert (tmp_path / f"{refused.name}.error").read_text().startswith("call_failed: bad_request")
    worker.kill()


@pytest.fixture
def website(deployment: Deployment) -> Iterator[str]:
    """The address of the web service."""
    process = deployment.python("web", ["-m", "uvicorn", "examples.web:app", "--port", "0"])
    process.until_it_says("Uvicorn running on")
    yield process.output().partition("Uvicorn running on ")[2].split()[0]
    assert process.stop() in (0, -signal.SIGTERM)


def ask(url: str, body: object = None) -> tuple[int, Any]:
    """Send one request, a POST if it has a body; return the status and the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - our own
    try:
        with urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


def test_a_web_service_awaits_its_calls(deployment: Deployment, website: str) -> None:
    """Equal requests at the same time are one call, and each ending has its own status."""
    org = deployment.org()
    slow = Step(text="late", latency_s=5.0)
    deployment.provider.script([rule("slow", slow), rule("bad", REFUSED), *answers_by_hand()])
    post = partial(ask, f"{website}/summaries")

    with ThreadPoolExecutor(4) as pool:
        same = list(pool.map(post, [{"org": org, "text": "A long text"}] * 4))
        waiting = pool.submit(post, {"org": org, "text": "a slow one"})
        until_equal(2, lambda: deployment.provider.counts().total)
        (row,) = deployment.rows(
            "SELECT call_id, generation FROM llm_call WHERE org_id = :org AND state = 'running'",
            org=org,
        )
        early = ask(f"{website}/summaries/{row.call_id}.{row.generation}")
        late = waiting.result(PATIENCE_S)
    frozen = deployment.org()
    freeze = PauseKey(org_id=frozen, is_freeze=True)
    deployment.client.operations.pause(freeze, by=By("tests", "unpaid"))
    endings = [
        post({"org": org, "text": "x" * 2_000_000}),
        post({"org": deployment.org(limit_nano_usd=None), "text": "A long text"}),
        post({"org": org, "text": "a bad one"}),
        post({"org": frozen, "text": "A long text"}),
        ask(f"{website}/summaries/{uuid4()}.1"),
    ]

    assert {status for status, _ in same} == {200}
    assert len({answer["id"] for _, answer in same}) == 1
    assert same[0][1]["summary"] == "It is a text, and it is long."
    assert (early[0], early[1]["code"]) == (504, "wait_timeout")
    assert (late[0], late[1]["summary"]) == (200, "late")
    assert ask(f"{website}/summaries/{late[1]['id']}") == late
    assert [(status, answer["code"]) for status, answer in endings] == [
        (422, "input_too_large"),
        (402, "budget_not_configured"),
        (502, "call_failed"),
        (403, "organisation_frozen"),
        (404, "call_not_found"),
    ]


def test_a_batch_shows_its_progress_and_can_be_run_again(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Equal lines are one call, a refused line has its error, and a second run pays for nothing."""
    questions = (EXAMPLES / "questions.jsonl").read_text("utf-8").splitlines()
    deployment.provider.script([rule("bells", REFUSED), *answers_by_hand()])
    deployment.limit("acme", RICH_NANO_USD)
    answers = tmp_path / "answers.jsonl"
    program = ("-m", "examples.batch", "examples/questions.jsonl", str(answers))

    runs, written = [], []
    for _ in range(2):
        runs.append(run(deployment, *program))
        written.append(sorted(answers.read_text("utf-8").splitlines()))

    assert written[0] == written[1]
    found = {line["id"]: line for line in map(json.loads, written[0])}
    assert found.keys() == {json.loads(line)["id"] for line in questions}
    assert found["1"]["answer"] == found["4"]["answer"] == "Because it is so."
    assert found["8"]["error"] == "call_failed"
    assert runs[0].startswith(f"{len(questions)} lines, at most 0.")
    assert f"{len(questions) - 1} of {len(questions) - 1} calls, 0." in runs[0]
    assert deployment.provider.counts().total == len(questions) - 1


def test_a_budget_of_a_call_type_bites(deployment: Deployment) -> None:
    """The commands are those of the program's first lines."""
    import examples.budgets

    said = examples.budgets.__doc__ or ""
    *commands, program = re.findall(r"^    (callgate .*|python .*)", said, re.MULTILINE)
    deployment.provider.script(answers_by_hand())
    for command in commands:
        run(deployment, "-m", *shlex.split(command))

    output = run(deployment, *shlex.split(program)[1:])

    assert len(commands) == 2
    answered = re.search(r"chat: (\d+) of 12 answered\n  budget_exhausted: ", output)
    assert answered, output
    assert 0 < int(answered[1]) < 12
    assert "extraction: 3 of 3 answered" in output
    assert output.count("extraction") == 1
    (chat,) = [b for b in deployment.client.operations.budgets("acme") if b.scope != "org"]
    assert 0 < chat.spent_nano_usd <= chat.limit_nano_usd == 500_000
    assert chat.reserved_nano_usd == 0


def test_one_pipeline_runs_on_three_providers(deployment: Deployment) -> None:
    """The next provider is asked if one has given up."""
    deployment.provider.script([rule("(copy)", REFUSED, Step(text=INVOICE)), *answers_by_hand()])
    deployment.limit("acme", RICH_NANO_USD)

    output = run(deployment, "-m", "examples.three_providers", "Invoice INV-7, total 120.00 EUR")

    invoice = "Invoice(number='INV-7', total=120.0)"
    for provider, model in MODELS.items():
        assert re.search(
            rf"^{provider}: {re.escape(invoice)} by {model}, 0\.0", output, re.MULTILINE
        )
    assert output.endswith("openai: bad_request\nfirst: gpt-4o-mini\n")
    assert deployment.provider.counts().total == 5
    assert len({request.path for request in deployment.provider.requests().records}) == 3
