"""What is wrong is refused with a typed error that says what to do; nothing is stored, sent, or lost by it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from redis import Redis

from callgate import Client, LLMRequest, Message
from callgate.adapters.broker.app import CALL_QUEUE
from callgate.domain.errors import (
    BrokerUnavailable,
    BudgetNotConfigured,
    CallgateError,
    CallNotFound,
    IdempotencyMismatch,
    InputTooLarge,
    InvalidLink,
    InvalidRequest,
    InvalidSchema,
    LedgerUnavailable,
    MissingOutputBound,
    NotMigrated,
    TooManyPages,
    UnknownModel,
    UnknownProvider,
    UnpricedModel,
)
from devkit.servers.ports import free_port
from tests.support.deployment import Deployment, until, worker_argv

pytestmark = pytest.mark.long
PATIENCE_S = 30.0


def message(content: str) -> list[Message]:
    """One message of a user."""
    return [Message(role="user", content=content)]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"provider": "nobody"}, UnknownProvider),
        ({"model": "sim-2"}, UnpricedModel),
        ({"call_type": "bounded", "model": "sim-2"}, UnknownModel),
        ({"call_type": "bounded", "max_output_tokens": None}, MissingOutputBound),
        ({"max_output_tokens": 999_999}, InvalidRequest),
        ({"call_type": "bounded", "document_pages": 4}, TooManyPages),
        ({"call_type": "bounded", "messages": message("many words " * 30)}, InputTooLarge),
        ({"messages": message("x" * 20_000_000)}, InputTooLarge),
        ({"response_schema": {"type": "no such type"}}, InvalidSchema),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else next(iter(value)),
)
def test_a_gate_refuses_before_anything_is_stored(
    deployment: Deployment, fields: dict[str, Any], error: type[InvalidRequest]
) -> None:
    """A request that cannot run is refused where it is made: no call, no submission, no message."""
    org = deployment.org()

    with pytest.raises(error):
        deployment.client.submit(deployment.request(org, **fields))

    assert deployment.rows("SELECT 1 FROM llm_call WHERE org_id = :org", org=org) == []
    assert deployment.rows("SELECT 1 FROM submission WHERE org_id = :org", org=org) == []


def test_one_bad_request_of_many_stores_none(deployment: Deployment) -> None:
    """All gates are asked before anything of a `submit_many` is stored."""
    org = deployment.org()
    requests = [deployment.request(org), deployment.request(org, provider="nobody")]

    with pytest.raises(UnknownProvider):
        deployment.client.submit_many(requests)

    assert deployment.rows("SELECT 1 FROM llm_call WHERE org_id = :org", org=org) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": "half a pair: \ud83d"}]},
        {"messages": [{"role": "user", "content": "x"}] * 1_001},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0},
        {"n": 0},
        {"max_output_tokens": 0},
        {"response_schema": {"maximum": math.nan}},
        {"response_schema": {"const": object()}},
        {"response_schema": {"const": "\udc00"}},
        {"response_schema": "no JSON"},
        {"response_schema": "[]"},
        {"org_id": "two words"},
        {"org_id": ""},
        {"temprature": 0.5},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_request_that_is_none_cannot_be_made(fields: dict[str, Any]) -> None:
    """What cannot be hashed, stored and sent alike everywhere never becomes a request."""
    good = {"org_id": "acme", "call_type": "x", "provider": "sim", "model": "sim-1"}
    LLMRequest(**good, messages=message("fine"))

    with pytest.raises(ValidationError):
        LLMRequest(**{**good, "messages": message("fine"), **fields})


def test_a_key_belongs_to_one_request(deployment: Deployment) -> None:
    """The same idempotency key for another body is an error; for the same body it is the same call."""
    deployment.ensure_worker()
    org = deployment.org()
    request = deployment.request(org)

    first = deployment.client.submit(request, idempotency_key="invoice-7")
    again = deployment.client.submit(request, idempotency_key="invoice-7")
    with pytest.raises(IdempotencyMismatch, match="invoice-7"):
        deployment.client.submit(deployment.request(org), idempotency_key="invoice-7")

    assert first.key == again.key
    assert first.get(timeout=PATIENCE_S).text == "ok"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
def test_a_key_is_short_printable_text(deployment: Deployment, key: str) -> None:
    """What cannot be read in a list is no key."""
    with pytest.raises(InvalidRequest, match="idempotency key"):
        deployment.client.submit(deployment.request(deployment.org()), idempotency_key=key)


def test_a_link_that_cannot_be_published_is_refused(deployment: Deployment) -> None:
    """A link is checked at submit, not when the answer is there."""
    from tests.support.pipeline import build_app

    store = build_app(deployment.environ["CALLGATE_BROKER_URL"]).tasks["pipeline.store"]
    request = deployment.request(deployment.org())

    for link in ("pipeline.store", store.s(object()), store.s("x" * 70_000)):
        with pytest.raises(InvalidLink):
            deployment.client.submit(request, link=link)  # type: ignore[arg-type]


def test_an_organisation_without_a_budget_is_refused(deployment: Deployment) -> None:
    """By default nobody spends what nobody allowed."""
    deployment.ensure_worker()
    org = deployment.org(limit_nano_usd=None)

    with pytest.raises(BudgetNotConfigured, match="callgate budgets set"):
        deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S)

    assert deployment.provider.counts().total == 0
    assert deployment.attempts(org) == []


def test_a_default_budget_admits_an_organisation(deployment: Deployment) -> None:
    """With a default daily budget a new organisation runs within it, and its budget is there to see."""
    deployment.stop_workers()
    worker = deployment.worker(CALLGATE_WORKER__DEFAULT_DAILY_USD="0.5")
    org = deployment.org(limit_nano_usd=None)

    assert deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S).text == "ok"

    (budget,) = deployment.client.operations.budgets(org)
    assert budget.limit_nano_usd == 500_000_000
    assert budget.spent_nano_usd > 0
    worker.kill()


def envelope(body: Any, headers: dict[str, Any]) -> str:
    """A message as kombu's Redis transport writes it."""
    return json.dumps(
        {
            "body": json.dumps(body),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "delivery_mode": 2,
                "delivery_tag": f"forged-{time.monotonic_ns()}",
                "delivery_info": {"exchange": "", "routing_key": CALL_QUEUE},
                "body_encoding": None,
            },
        }
    )


UNPROCESSABLE = {
    "no envelope": lambda: "this is not JSON",
    "an envelope of nothing": lambda: "{}",
    "no task": lambda: envelope({"hello": "world"}, {}),
    "an unknown task": lambda: envelope([[], {}, {}], {"task": "no.such.task", "id": "1"}),
    "no id": lambda: envelope([[], {}, {}], {"task": "callgate.call"}),
    "a body of the wrong shape": lambda: envelope(7, {"task": "callgate.call", "id": "1"}),
    "a body that is no JSON": lambda: envelope(
        [[], {}, {}], {"task": "callgate.call", "id": "2"}
    ).replace('"[[], {}, {}]"', '"[["'),
}


@pytest.mark.parametrize("message_of", UNPROCESSABLE.values(), ids=UNPROCESSABLE)
def test_an_unprocessable_message_is_kept_and_affects_no_call(
    deployment: Deployment, message_of: Callable[[], str]
) -> None:
    """What names no call ends in `unprocessable_message`; the worker survives it and goes on."""
    worker = deployment.ensure_worker()
    kept = len(deployment.client.operations.unprocessable_messages(limit=100))
    with Redis.from_url(deployment.services.broker_url) as valkey:
        valkey.lpush(CALL_QUEUE, message_of())

    until(lambda: len(deployment.client.operations.unprocessable_messages(limit=100)) == kept + 1)

    _, message = deployment.client.operations.unprocessable_messages(limit=1)[0]
    # What is not even JSON does not say which queue it came from.
    assert message.queue in (CALL_QUEUE, "")
    assert message.reason
    request = deployment.request(deployment.org())
    assert deployment.client.submit(request).get(timeout=PATIENCE_S).text == "ok"
    assert worker.is_alive()


@pytest.mark.parametrize(
    "arguments", [[], ["no uuid", 1], ["00000000-0000-8000-8000-000000000000", 1], [1, 2, 3, 4]]
)
def test_a_task_for_no_call_harms_nobody(deployment: Deployment, arguments: list[Any]) -> None:
    """A call task whose arguments name no call fails alone, and is not delivered again."""
    worker = deployment.ensure_worker()
    headers = {"task": "callgate.call", "id": f"odd-{time.monotonic_ns()}", "lang": "py"}
    with Redis.from_url(deployment.services.broker_url) as valkey:
        valkey.lpush(CALL_QUEUE, envelope([arguments, {}, {}], headers))

        request = deployment.request(deployment.org())
        assert deployment.client.submit(request).get(timeout=PATIENCE_S).text == "ok"

        until(deployment.is_idle)
    assert worker.is_alive()


def test_a_task_id_of_something_else_is_refused(deployment: Deployment) -> None:
    """A handle is made of callgate's task ids only; one the ledger does not know is not found."""
    with pytest.raises(InvalidRequest):
        deployment.client.handle("celery-task-1")

    unknown = deployment.client.handle("00000000-0000-8000-8000-000000000000.1")
    with pytest.raises(CallNotFound):
        unknown.get(timeout=1)


def test_a_database_that_is_not_migrated_is_said_to_be(deployment: Deployment) -> None:
    """Client and worker say what to run; the worker does not start."""
    url = deployment.services.database_url.rpartition("/")[0] + "/template1"

    with deployment.open_client(database_url=url) as client, pytest.raises(NotMigrated) as error:
        client.submit(deployment.request(deployment.org()))
    worker = deployment.start("unmigrated", worker_argv(), CALLGATE_DATABASE_URL=url)

    assert "callgate migrate" in str(error.value)
    assert worker.wait() == 2
    assert "callgate migrate" in worker.output()
    assert "Traceback" not in worker.output()


def test_without_a_broker_a_call_is_accepted_and_waits(deployment: Deployment) -> None:
    """Submitting does not need the broker: the ledger has the call, and the sweep publishes it later."""
    deployment.stop_workers()
    gone = f"redis://127.0.0.1:{free_port()}/0"
    with deployment.open_client(broker_url=gone, broker_timeout_s=1) as client:
        began = time.monotonic()
        handle = client.submit(deployment.request(deployment.org()))
        waited_s = time.monotonic() - began

        with pytest.raises(BrokerUnavailable):
            client.queue.publish_calls([handle.key])

    assert waited_s < 10
    deployment.ensure_worker()
    found = deployment.client.handle(handle.task_id)
    assert found.get(timeout=PATIENCE_S).attempts == 1


def test_a_broker_that_stops_answering_costs_a_submitter_its_bound(deployment: Deployment) -> None:
    """A suspended broker breaks no socket: the submit comes back within seconds, and the call is not lost."""
    deployment.ensure_worker()
    org = deployment.org()
    deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S)
    deployment.services.valkey.suspend()
    try:
        began = time.monotonic()
        handle = deployment.client.submit(deployment.request(org))
        waited_s = time.monotonic() - began
    finally:
        deployment.services.valkey.resume()

    assert waited_s < 15
    assert handle.get(timeout=PATIENCE_S).attempts == 1


def test_a_worker_waits_for_its_broker(deployment: Deployment) -> None:
    """Started before its broker, a worker lives and says what it waits for."""
    broker = f"redis://127.0.0.1:{free_port()}/0"

    worker = deployment.start("brokerless", worker_argv(), CALLGATE_BROKER_URL=broker)

    worker.until_it_says("Cannot connect to")
    assert worker.is_alive()
    worker.kill()


def test_without_a_database_nothing_is_accepted(deployment: Deployment) -> None:
    """An unreachable ledger is a typed error within bounds, at submit and at the worker's start."""
    url = f"postgresql+psycopg2://nobody:secret-word@127.0.0.1:{free_port()}/none"
    request = deployment.request(deployment.org())
    began = time.monotonic()

    with (
        deployment.open_client(database_url=url, ledger_timeout_s=2) as client,
        pytest.raises(LedgerUnavailable) as error,
    ):
        client.submit(request)

    assert time.monotonic() - began < 10
    assert "secret-word" not in str(error.value)
    worker = deployment.start("ledgerless", worker_argv(), CALLGATE_DATABASE_URL=url)
    assert worker.wait() == 1
    assert "ledger_unavailable" in worker.output()
    assert "secret-word" not in worker.output()
    assert "Traceback" not in worker.output()


def test_a_ledger_that_stops_answering_loses_nothing(deployment: Deployment) -> None:
    """Suspended in mid call, Postgres costs time only: submit says so, the running call ends in its first attempt."""
    from devkit.simulator.simulator import Rule, Step

    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=1)])])
    running = deployment.client.submit(deployment.request(org))
    refused = deployment.request(org)
    until(lambda: deployment.provider.counts().in_flight == 1)

    with deployment.open_client(ledger_timeout_s=1) as client:
        deployment.services.postgres.suspend()
        try:
            with pytest.raises(LedgerUnavailable):
                client.submit(refused)
            until(lambda: deployment.provider.counts().in_flight == 0)
        finally:
            deployment.services.postgres.resume()
        assert client.submit(refused).get(timeout=PATIENCE_S).text == "ok"

    assert running.get(timeout=PATIENCE_S).attempts == 1
    assert {row.status for row in deployment.attempts(org)} == {"succeeded"}


def test_a_misspelt_variable_stops_the_process(deployment: Deployment) -> None:
    """An unknown variable would silently be a default: it is an error, with the one that was meant."""
    misspelt = {"CALLGATE_WORKER__SHUTDOWN_TIMOUT_S": "20", "CALLGATE_BROKR_URL": "redis://x"}

    worker = deployment.start("misspelt", worker_argv(), **misspelt)

    assert worker.wait() == 2
    assert (
        "CALLGATE_WORKER__SHUTDOWN_TIMOUT_S: no such setting; did you mean CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S?"
        in (worker.output())
    )
    assert "did you mean CALLGATE_BROKER_URL?" in worker.output()
    assert "Traceback" not in worker.output()


def test_settings_that_cannot_work_together_stop_the_process(deployment: Deployment) -> None:
    """Bounds between settings are checked at the start, each with what would break."""
    worker = deployment.start("unrelated", worker_argv(), CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S="3")

    assert worker.wait() == 2
    assert "must exceed the longest deadline" in worker.output()


def test_a_client_needs_its_two_urls(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both missing variables are named at once."""
    for name in deployment.environ:
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(CallgateError) as error:
        Client.from_env()

    assert "CALLGATE_DATABASE_URL: not set" in str(error.value)
    assert "CALLGATE_BROKER_URL: not set" in str(error.value)
