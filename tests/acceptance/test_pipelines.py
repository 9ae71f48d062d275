"""What a pipeline sees: duplicates, links, redrives, Celery results, asyncio. Real workers and servers."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from callgate.client import Handle
from callgate.domain.errors import CallFailed
from callgate.domain.sums import CostFilter
from devkit.simulator.simulator import Kind, Match, Rule, Step
from tests.support.deployment import Deployment, lines_of, until, until_equal
from tests.support.pipeline import FILE, build_app

PATIENCE_S = 30.0

SUBMIT_THE_SAME = """
import sys
from callgate import Client, LLMRequest, Message

with Client.from_env() as client:
    request = LLMRequest.model_validate_json(sys.argv[1])
    handles = [client.submit(request) for _ in range(int(sys.argv[2]))]
    for handle in handles:
        print(handle.get(timeout=60).model_dump_json())
"""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline whose own worker runs the tasks that links name."""

    store: Any
    complain: Any
    _file: Path

    def told(self) -> list[dict[str, str]]:
        """What its tasks were told so far."""
        return [json.loads(line) for line in lines_of(self._file)]


@pytest.fixture
def pipeline(deployment: Deployment, tmp_path: Path) -> Iterator[Pipeline]:
    """A running pipeline."""
    file = tmp_path / "told.jsonl"
    argv = [sys.executable, "-m", "tests.support.pipeline"]
    process = deployment.start("pipeline", argv, **{FILE: str(file)}).until_it_says("ready.")
    tasks = build_app(deployment.environ["CALLGATE_BROKER_URL"]).tasks
    yield Pipeline(tasks["pipeline.store"], tasks["pipeline.complain"], file)
    process.kill()


def test_fifty_duplicates_are_one_provider_request(deployment: Deployment) -> None:
    """Identical submissions of threads and processes become one call, and all get its result."""
    deployment.ensure_worker()
    org = deployment.org()
    request = deployment.request(org)
    deployment.provider.script([Rule(reply=[Step(text="one", latency_s=1.5)])])
    arguments = [request.model_dump_json(), "10"]
    handles: list[Handle] = []
    threads = [
        threading.Thread(
            target=lambda: handles.extend(deployment.client.submit(request) for _ in range(10))
        )
        for _ in range(3)
    ]

    processes = [
        deployment.start(f"submitter-{n}", [sys.executable, "-c", SUBMIT_THE_SAME, *arguments])
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    answers = [handle.get(timeout=PATIENCE_S).text for handle in handles]
    codes = [process.wait() for process in processes]
    answers += [json.loads(line)["text"] for p in processes for line in p.output().splitlines()]

    assert codes == [0, 0]
    assert answers == ["one"] * 50
    assert deployment.provider.counts().total == 1
    assert len(deployment.attempts(org)) == 1
    (line,) = deployment.client.operations.costs(CostFilter(org_id=org))
    used = line.used
    assert (used.calls, used.attempts, used.collapsed) == (1, 1, 49)
    assert used.saved_nano_usd == 49 * used.posted_nano_usd


def test_every_submitter_is_told(deployment: Deployment, pipeline: Pipeline) -> None:
    """A link fires for the first submitter, for a duplicate and for a replay, each in the pipeline's own queue."""
    deployment.ensure_worker()
    request = deployment.request(deployment.org())
    deployment.provider.script([Rule(reply=[Step(latency_s=0.5)])])

    first = deployment.client.submit(request, link=pipeline.store.s("first"))
    joined = deployment.client.submit(request, link=pipeline.store.s("joined"))
    first.get(timeout=PATIENCE_S)
    replayed = deployment.client.submit(request, link=pipeline.store.s("replayed"))

    until(lambda: len(pipeline.told()) >= 3, PATIENCE_S)
    assert (first.collapsed, joined.collapsed, replayed.collapsed) == (False, True, True)
    assert {line["document_id"] for line in pipeline.told()} == {"first", "joined", "replayed"}
    assert {(line["task_id"], line["state"]) for line in pipeline.told()} == {
        (first.task_id, "succeeded")
    }
    submissions = {str(row[0]) for row in deployment.rows("SELECT submission_id FROM submission")}
    assert {line["id"] for line in pipeline.told()} <= submissions
    assert deployment.provider.counts().total == 1


def test_a_dead_letter_is_redriven_and_tells_the_original_link(
    deployment: Deployment, pipeline: Pipeline
) -> None:
    """Retries, then dead with its reason; redriven, it succeeds, and who asked first hears of both ends."""
    deployment.ensure_worker()
    request = deployment.request(deployment.org(), call_type="brief")
    deployment.provider.script([Rule(reply=[Step(kind=Kind.STATUS, status=409)])])

    handle = deployment.client.submit(
        request, link=pipeline.store.s("doc"), link_error=pipeline.complain.s("doc")
    )
    with pytest.raises(CallFailed) as failure:
        handle.get(timeout=PATIENCE_S)

    assert (failure.value.failure_code, failure.value.attempts) == ("conflict", 2)
    assert deployment.provider.counts().total == 2
    until_equal([("complain", "dead")], lambda: [(t["task"], t["state"]) for t in pipeline.told()])
    (reason,) = deployment.rows(
        "SELECT reason FROM dead_letter WHERE call_id = :id", id=handle.key.call_id
    )
    assert "conflict" in str(reason)

    deployment.provider.script([Rule(reply=[Step(text="at last")])])
    (submitted,), refused = deployment.client.redrive([handle.key])

    again = deployment.client.handle(submitted.key.task_id)
    assert not refused
    assert again.get(timeout=PATIENCE_S).text == "at last"
    assert (again.key.call_id, again.key.generation) == (handle.key.call_id, 2)
    until(lambda: "succeeded" in {t["state"] for t in pipeline.told()})
    assert {(t["task"], t["document_id"]) for t in pipeline.told()} == {
        ("complain", "doc"),
        ("store", "doc"),
    }


def test_a_call_is_a_celery_result_too(deployment: Deployment) -> None:
    """`async_result` is Celery's own, and reads the ledger: states, result and typed error."""
    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script(
        [Rule(match=Match(text="bad"), reply=[Step(kind=Kind.STATUS, status=400)])]
    )

    good = deployment.client.submit(deployment.request(org)).async_result
    bad = deployment.client.submit(deployment.request(org, "bad")).async_result

    assert good.get(timeout=PATIENCE_S).text == "ok"
    assert (good.state, good.successful()) == ("SUCCESS", True)
    with pytest.raises(CallFailed):
        bad.get(timeout=PATIENCE_S)
    assert bad.state == "FAILURE"


def test_a_pipeline_may_be_asynchronous(deployment: Deployment) -> None:
    """Submitting and waiting have twins that leave the event loop free."""
    deployment.ensure_worker()
    org = deployment.org()
    client = deployment.client

    async def run() -> tuple[str, set[str]]:
        handle = await client.asubmit(deployment.request(org))
        handles = await client.asubmit_many([deployment.request(org) for _ in range(5)])
        done = {h.task_id async for h in client.aas_completed(handles, timeout=PATIENCE_S)}
        assert done == {h.task_id for h in handles}
        return (await handle).text, done

    text, done = asyncio.run(asyncio.wait_for(run(), PATIENCE_S))

    assert (text, len(done)) == ("ok", 5)
