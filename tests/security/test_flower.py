"""Attacks on Flower: a user of the broker, a guesser of the password, and a user with the password."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.deployment import RICH_NANO_USD, Deployment, Process, until_equal
from tests.support.flower import (
    HTML,
    FlowerUnderTest,
    a_flower,
    heartbeat,
    publish,
    task_event,
    task_page,
)
from tests.support.forged_events import FORGED, FORGED_TASKS
from worker.flower.access import WRONG_AT_ONCE
from worker.flower.state import PAIRS_MAX

pytestmark = pytest.mark.long
COMMANDS = [
    *(f"/api/task/{what}/pipeline.store" for what in ("apply", "async-apply", "send-task")),
    *(f"/api/task/{what}/some-id" for what in ("abort", "revoke")),
    *(f"/api/task/{what}/callgate.call" for what in ("timeout", "rate-limit")),
    *(f"/api/worker/{what}/callgate@host" for what in ("shutdown", "pool/restart", "pool/grow")),
    *(f"/api/worker/{what}/callgate@host" for what in ("pool/shrink", "pool/autoscale")),
    *(f"/api/worker/queue/{what}/callgate@host" for what in ("add-consumer", "cancel-consumer")),
]
PAGES = [
    "/overview",
    "/workers",
    "/tasks",
    "/broker",
    "/logout",
    "/no-such-page",
    "/worker/no-such",
]
PRESSING_MAX_KB = 50_000
"""What Flower may grow by under a storm; it holds about 90 MB at rest."""


@pytest.fixture(scope="module")
def flower(standing: Deployment) -> Iterator[FlowerUnderTest]:
    """Flower with its default settings."""
    with a_flower(standing) as flower:
        flower.until_it_receives()
        yield flower


def resident_kb(process: Process) -> int:
    """The memory of a process in kB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1])


@pytest.mark.parametrize("path", COMMANDS)
def test_commands_are_refused_by_default(
    deployment: Deployment, flower: FlowerUnderTest, path: str
) -> None:
    """With the password: 403 with the reason, and nothing on the broker. Without it: 401, before the 403."""
    with Redis.from_url(deployment.services.broker_url) as broker:
        before = set(broker.keys("*pipeline*"))
        answers = [flower.ask(path, method) for method in ("POST", "PUT", "PATCH", "DELETE")]

        assert set(broker.keys("*pipeline*")) == before
    assert [answer.status for answer in answers] == [403] * 4
    assert "CALLGATE_WORKER__FLOWER_READ_ONLY" in answers[0].body
    assert flower.ask(path, "POST", auth=None).status == 401


def test_commands_work_when_they_are_enabled(deployment: Deployment) -> None:
    """But not for another site's page in an operator's browser."""
    path = "/api/task/send-task/pipeline.asked_for"
    with a_flower(
        deployment,
        CALLGATE_WORKER__FLOWER_READ_ONLY="false",
        CALLGATE_WORKER__FLOWER_COMMANDS="true",
        CALLGATE_WORKER__FLOWER_ROLES="callgate=operator",
    ) as flower:
        assert flower.ask(path, "POST", Origin="http://elsewhere").status == 403
        assert flower.ask(path, "POST", auth=None).status == 401
        assert flower.ask(path, "POST").status == 200


def test_reading_works_in_read_only_mode(flower: FlowerUnderTest) -> None:
    """The table of tasks uses POST, and is not a command."""
    query = "draw=1&start=0&length=5&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"

    assert flower.ask(f"/tasks/datatable?{query}", "POST").status == 200
    assert {path: flower.ask(path).status for path in PAGES[:4]} == dict.fromkeys(PAGES[:4], 200)


def test_flowers_own_variables_and_files_are_ignored(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Neither opens the API, nor turns off the read-only mode or the password."""
    (tmp_path / "flowerconfig.py").write_text("read_only = False\nbasic_auth = []\n")
    with a_flower(
        deployment,
        FLOWER_UNAUTHENTICATED_API="true",
        FLOWER_READ_ONLY="false",
        FLOWER_BASIC_AUTH="a:b",
        FLOWER_CONF=str(tmp_path / "flowerconfig.py"),
        FLOWER_DEBUG="true",
    ) as flower:
        assert flower.ask("/api/tasks", auth=None).status == 401
        assert flower.ask("/api/tasks", auth="a:b").status == 401
        assert flower.ask("/api/worker/shutdown/x", "POST").status == 403


def test_without_a_password_only_a_loopback_name_is_answered(deployment: Deployment) -> None:
    """Otherwise a web page could rebind its own name to this address, and read everything in a developer's browser."""
    with a_flower(
        deployment, CALLGATE_WORKER__FLOWER_BASIC_AUTH="", FLOWER_UNAUTHENTICATED_API="true"
    ) as flower:
        assert flower.ask("/tasks", auth=None).status == 200
        assert flower.ask("/tasks", auth=None, Host=f"localhost:{flower.port}").status == 200
        assert flower.ask("/tasks", auth=None, Host="elsewhere.example").status == 403
        api = flower.ask("/api/tasks", auth=None)
        assert (api.status, api.headers.get("Access-Control-Allow-Origin")) == (401, None)


@pytest.mark.parametrize("path", [*PAGES, "/api/tasks", "/metrics", "/static/js/flower.js"])
def test_every_response_has_the_security_headers(flower: FlowerUnderTest, path: str) -> None:
    """Errors too; and the policy allows what Flower itself writes into its pages."""
    answer = flower.ask(path)
    policy = answer.headers["Content-Security-Policy"]

    for script in re.findall(r"<script[^>]*>([^<]+)</script>", answer.body):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"script-src[^;]*unsafe", policy)
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"


def test_forged_workers_are_dropped(deployment: Deployment, flower: FlowerUnderTest) -> None:
    """They appear on no page, not in the API, and not in the metrics."""
    publish(deployment, [*FORGED.values()])
    flower.until_it_has_received_all()

    shown = flower.workers()
    assert [how for how, event in FORGED.items() if event["hostname"] in shown] == []
    seen = {path: flower.ask(path).body for path in ("/workers", "/api/workers", "/metrics")}
    assert [path for path, body in seen.items() if "forged@" in body or "onerror" in body] == []


def test_forged_tasks_are_dropped(deployment: Deployment, flower: FlowerUnderTest) -> None:
    """And do not break the pages of others."""
    publish(deployment, [*FORGED_TASKS.values()])
    flower.until_it_has_received_all()

    shown = flower.tasks()
    assert [how for how, event in FORGED_TASKS.items() if event["uuid"] in shown] == []
    assert "onerror" not in flower.ask("/metrics").body
    assert flower.ask("/tasks").status == 200


def test_malformed_events_do_not_stop_flower(
    deployment: Deployment, flower: FlowerUnderTest
) -> None:
    """Good events of the same batch are stored."""
    odd: list[Any] = [None, 7, "x", [], {}, {"type": 7}, {"type": "task-received"}, [[[]]]]
    publish(deployment, [*odd, [*odd, heartbeat(hostname="beside@rubbish")]])
    flower.until_it_has_received_all()

    assert "beside@rubbish" in flower.workers()


@pytest.mark.parametrize("text", ["(" * 512, "-" * 511 + "1", "{[]: 1}", "{1: " * 128])
def test_unparsable_arguments_are_shown_as_text(
    deployment: Deployment, flower: FlowerUnderTest, text: str
) -> None:
    """Flower parses them for its search, and expects only two of the errors that this may raise."""
    publish(deployment, [task_event(uuid="unread-1", kwargs=text)])
    publish(deployment, [task_event(uuid="read-1")])
    flower.until_it_has_received_all()

    assert "read-1" in flower.tasks()
    assert flower.ask(task_page("unread-1")).status == 200
    assert "Traceback" not in flower.process.output()


def test_unknown_fields_are_dropped_and_long_texts_cut(
    deployment: Deployment, flower: FlowerUnderTest
) -> None:
    """Celery would set every field as an attribute of its worker, methods included."""
    event = task_event(uuid="cut-1", args="a" * 100_000, kwargs=f"{HTML}\u202e\ud800\x1b")
    odd = heartbeat(hostname="odd@fields", event="x", heartbeats="x", alive="x", hostile=HTML)
    publish(deployment, [odd, event])
    flower.until_it_has_received_all()

    assert flower.workers()["odd@fields"]["status"] is True
    assert "hostile" not in flower.workers()["odd@fields"]
    assert len(flower.tasks()["cut-1"]["args"]) == 512
    assert flower.tasks()["cut-1"]["kwargs"] == f"{HTML}???"
    page = flower.ask(task_page("cut-1"))
    assert page.status == 200
    assert "<img src=x" not in page.body


def test_the_number_of_names_is_bounded(deployment: Deployment, flower: FlowerUnderTest) -> None:
    """Each new name is a row of workers and of metrics. Real ones return after the state was cleared."""
    before = resident_kb(flower.process)
    for batch in range(20):
        names = [f"w{batch}-{n}@storm" for n in range(PAIRS_MAX // 8)]
        publish(deployment, [[heartbeat(hostname=name) for name in names]])
        tasks = [task_event(uuid=f"{n}", name=n.replace("@", "."), hostname=n) for n in names]
        publish(deployment, [tasks])
    flower.until_it_has_received_all()

    assert len(flower.workers()) <= 1_000
    assert flower.ask("/metrics").body.count("flower_worker_online{") <= PAIRS_MAX
    assert resident_kb(flower.process) - before < PRESSING_MAX_KB


def test_tasks_of_real_calls_are_shown(
    deployment: Deployment, flower: FlowerUnderTest, worker: Callable[..., Process]
) -> None:
    """A real worker passes every check, while others forge; no text of a tenant is shown."""
    worker()
    org, names = "hostile-org", {"call_type": "hostile-type", "trace_id": f"hostile {HTML}"}
    deployment.limit(org, RICH_NANO_USD)
    publish(deployment, [*FORGED.values(), *FORGED_TASKS.values()])

    handle = deployment.client.submit(deployment.request(org, f"hostile {HTML}", **names))
    handle.get(timeout=60)

    def shown() -> tuple[object, ...]:
        task = flower.tasks().get(handle.task_id, {})
        return tuple(task.get(name) for name in ("state", "name", "kwargs"))

    # The consumer and the pool of a worker send events by themselves: the last may come first.
    until_equal(("SUCCESS", "callgate.call", "{}"), shown)
    (name,) = [name for name in flower.workers() if name.startswith("callgate")]
    assert flower.workers()[name]["sw_ident"] == "py-celery"
    paths = ["/workers", "/api/tasks", "/metrics", f"/worker/{name}", task_page(handle.task_id)]
    answers = {path: flower.ask(path) for path in ["/api/workers?refresh=1", *paths]}
    assert {answer.status for answer in answers.values()} == {200}
    assert [path for path, answer in answers.items() if "hostile" in answer.body] == []


ODD_PASSWORDS: list[str | bytes] = [
    "callgate:größte",
    "ü:the right one",
    b"\xff\xfe:\x00",
    b"",
    HTML,
]


def test_a_malformed_password_is_a_wrong_one(flower: FlowerUnderTest) -> None:
    """401, and no error of the server."""
    answers = [flower.ask("/workers", auth=auth, source="127.0.0.2") for auth in ODD_PASSWORDS]

    assert {answer.status for answer in answers} == {401}


def test_a_malformed_header_is_a_wrong_password(flower: FlowerUnderTest) -> None:
    headers = ["Basic", "Basic !!!", "Bearer abc", "x", "Basic a b c", "Basic \u00e9"]
    answers = [
        flower.ask("/workers", auth=None, source="127.0.0.3", Authorization=header)
        for header in headers
    ]

    assert {answer.status for answer in answers} == {401}
    assert all(a.headers["WWW-Authenticate"].startswith("Basic") for a in answers)


def test_a_guesser_is_slowed_down_and_locks_out_no_other(flower: FlowerUnderTest) -> None:
    """Not another address, and not a logged-in browser at its own address."""
    guesser = "127.0.0.4"
    cookies = flower.ask("/workers", source=guesser).headers.get_all("Set-Cookie", [])
    (cookie,) = [c.split(";")[0] for c in cookies if c.startswith("callgate_known=")]
    with ThreadPoolExecutor(8) as threads:
        guesses = list(
            threads.map(
                lambda n: flower.ask("/workers", auth=f"callgate:{n}", source=guesser).status,
                range(60),
            )
        )

    assert guesses.count(401) <= WRONG_AT_ONCE + 5
    assert guesses.count(401) + guesses.count(429) == 60
    late = flower.ask("/api/tasks", source=guesser)
    assert late.status == 429
    assert 0 < int(late.headers["Retry-After"]) <= 5
    assert flower.ask("/workers", source=guesser, Cookie=cookie).status == 200
    assert flower.ask("/workers", source="127.0.0.5").status == 200
    assert flower.ask("/workers", source=guesser, Cookie=cookie.replace("=", "=1")).status == 429


def test_a_huge_request_is_refused(flower: FlowerUnderTest) -> None:
    """Without a password nothing makes Flower hold a hundred megabytes."""
    before = resident_kb(flower.process)
    with socket.create_connection(("127.0.0.1", flower.port), timeout=20) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n")
        with pytest.raises(OSError):  # noqa: PT011, PT012 - by a reset or a closed pipe
            for _ in range(90):
                line.sendall(bytes(1_000_000))
    assert resident_kb(flower.process) - before < PRESSING_MAX_KB


def test_guesses_are_logged(flower: FlowerUnderTest) -> None:
    """When a sender has no tries left; the guess itself is not logged."""
    for n in range(WRONG_AT_ONCE + 2):
        flower.ask("/workers", auth=f"callgate:secret-{n}", source="127.0.0.6")

    assert "flower_logins.refused" in flower.process.output()
    assert "127.0.0.6" in flower.process.output()
    assert "secret-" not in flower.process.output()
