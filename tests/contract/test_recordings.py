"""
Recordings of providers are replayed through the real adapters. `make record` makes them again, where a key is there.

The recording named `simulator` is of the simulator. It shows that recording and replaying work, and verifies no preset.
"""

from __future__ import annotations

import asyncio
import json
import os
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import vcr
import yaml

from callgate.adapters.catalogue_file import recordings
from callgate.adapters.providers import adapter_class
from callgate.domain.dialect import why_inexpressible
from callgate.domain.provider import Failure, ProviderReply
from devkit.simulator.simulator import Simulator
from tests.support.openai_attempts import unset_proxies
from tests.support.provider_worlds import Keys, Received, SocketServer, http
from tests.support.record import RECORD_BASE_URL, RECORD_KEY, RECORD_NAME, simulator_rules
from tests.support.recordings import (
    CASSETTES,
    SCENARIOS,
    SIMULATOR,
    WRONG_KEY,
    Answer,
    Recording,
    Scenario,
    all_recordings,
)
from tests.support.recordings import (
    vcr_config as config_without,
)

ATTEMPT = UUID("01890000-0000-7000-8000-000000000003")
TIMEOUT_S = 60.0
RECORDED_NOW = os.environ.get(RECORD_NAME)
"""The one provider that `make record` records."""


def cases() -> list[Any]:
    """What is replayed; while recording, what the provider can be asked for."""
    found = []
    for recording in all_recordings():
        for scenario in SCENARIOS:
            file = CASSETTES / recording.name / f"{scenario.name}.yaml"
            if RECORDED_NOW is None and not file.exists():
                continue
            if RECORDED_NOW is not None and (
                recording.name != RECORDED_NOW
                or why_inexpressible(scenario.request(recording.model), recording.entry())
            ):
                continue
            name = f"{recording.name}/{scenario.name}"
            found.append(pytest.param(recording, scenario, id=name))
    return found


def ask(recording: Recording, scenario: Scenario, keys: Keys, base_url: str | None) -> Answer:
    """One request through the adapter of the recorded protocol."""
    entry = recording.entry(base_url)

    async def asked() -> Answer:
        adapter = adapter_class(entry.protocol)("recorded", entry, keys, connections_max=2)
        try:
            return await adapter.complete(
                scenario.request(recording.model), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S
            )
        finally:
            await adapter.aclose()

    return asyncio.run(asked())


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    if RECORDED_NOW is None:
        unset_proxies(monkeypatch)


@pytest.fixture(scope="module")
def keys() -> Keys:
    """The provider's key while it is recorded, else one that is none."""
    return Keys((os.environ.get(RECORD_KEY) or None) if RECORDED_NOW else "replayed")


@pytest.fixture(scope="module")
def vcr_config(keys: Keys) -> dict[str, Any]:
    return config_without([keys.key or ""])


@pytest.fixture(scope="module")
def vcr_cassette_dir() -> str:
    return str(CASSETTES)


@pytest.fixture
def default_cassette_name(recording: Recording, scenario: Scenario) -> str:
    return f"{recording.name}/{scenario.name}"


@pytest.mark.vcr
@pytest.mark.parametrize(("recording", "scenario"), cases())
def test_a_recorded_answer_is_read(recording: Recording, scenario: Scenario, keys: Keys) -> None:
    """Usage, ending, text, tool calls; and refusals are unbilled."""
    sent = Keys(scenario.key) if scenario.key else keys

    answer = ask(recording, scenario, sent, os.environ.get(RECORD_BASE_URL) or None)

    assert scenario.holds(answer), answer


def test_a_preset_is_verified_only_by_its_recording() -> None:
    """What comes with the package says the same as the cassettes."""
    recorded = {
        (recording.protocol, recording.preset): (recording.name, recording.as_of)
        for recording in all_recordings()
        if recording.preset
    }

    assert {
        key: (source.url.rpartition("/")[2], source.as_of) for key, source in recordings().items()
    } == recorded
    assert all((CASSETTES / name / "plain.yaml").exists() for name, _ in recorded.values())


def interactions(folder: Path) -> dict[str, Any]:
    return {
        file.name: yaml.safe_load(file.read_text("utf-8"))["interactions"]
        for file in sorted(folder.glob("*.yaml"))
    }


def test_the_simulator_is_recorded_as_it_answers_today(tmp_path: Path) -> None:
    """Recorded again, its cassettes have the same content."""
    recording = Recording.of(CASSETTES / SIMULATOR)
    with Simulator() as simulator:
        simulator.script(simulator_rules())
        for scenario in SCENARIOS:
            if why_inexpressible(scenario.request(recording.model), recording.entry()):
                continue
            cassette = tmp_path / f"{scenario.name}.yaml"
            with vcr.use_cassette(str(cassette), record_mode="all", **config_without([])):
                ask(recording, scenario, Keys("any"), simulator.base_url)

    assert interactions(tmp_path) == interactions(CASSETTES / SIMULATOR)


PLANTED = (
    "sk-planted-0123456789abcdef",
    "gsk_planted0123456789abcdef",
    "org-plantedAbCdEf123",
    "proj_plantedAbCdEf123",
    "planted@example.org",
    "user-planted123456",
    "req_planted123",
    "chatcmpl-planted123",
    "planted-cookie",
    "planted-host-name",
    "planted-own-secret",
    "req_planted_inside",
)


def planted_answer(status: int) -> bytes:
    """A response with secrets wherever a provider or a gateway puts them."""
    error = {"message": f"Incorrect key {PLANTED[0]}, {PLANTED[1]}, {PLANTED[10]}"}
    headers = {
        "content-type": "application/json",
        "openai-organization": PLANTED[2],
        "openai-project": PLANTED[3],
        "x-request-id": PLANTED[6],
        "set-cookie": PLANTED[8],
        "via": PLANTED[9],
        "x-ratelimit-limit-requests": "60",
    }
    body = {
        "id": PLANTED[7],
        "user": PLANTED[5],
        "x_groq": {"id": PLANTED[11]},
        "error": {**error, "owner": PLANTED[4], "organization": "planted-organisation"},
    }
    return http(json.dumps(body).encode(), status=status, headers=headers)


def test_no_secret_is_in_a_cassette(tmp_path: Path) -> None:
    """Neither of a response, nor of the caller's: the URL, the key, the prompt."""
    answers = iter([401, 200])

    async def exchange(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(planted_answer(next(answers)))

    cassette = tmp_path / "planted.yaml"
    scenario = Scenario("planted", f"My key is {PLANTED[0]} {PLANTED[10]}", lambda _: True)
    recording = Recording.of(CASSETTES / SIMULATOR)

    async def recorded() -> None:
        async with SocketServer(exchange) as server:
            url = server.base_url.replace("/v1", f"/{PLANTED[10]}/v1")
            for _ in range(2):
                await asyncio.to_thread(ask, recording, scenario, Keys(PLANTED[10]), url)

    with vcr.use_cassette(
        str(cassette), record_mode="all", **config_without([PLANTED[10], WRONG_KEY])
    ):
        asyncio.run(recorded())

    text = cassette.read_text("utf-8")
    assert [secret for secret in (*PLANTED, "planted-organisation") if secret in text] == []
    assert "127.0.0.1" not in text
    assert "x-callgate-attempt-id" not in text.lower()
    assert text.count("x-ratelimit-limit-requests") == 2


@pytest.mark.parametrize("recording", all_recordings(), ids=lambda recording: recording.name)
def test_a_cassette_has_only_headers_that_may_be_kept(recording: Recording) -> None:
    """Also one that was edited by hand."""
    clean = config_without([])
    for interaction in chain.from_iterable(interactions(CASSETTES / recording.name).values()):
        response = interaction["response"]
        again = clean["before_record_response"](response)
        assert again["headers"] == response["headers"]
        assert again["body"]["string"].decode() == response["body"]["string"]


def test_an_answer_that_is_not_recorded_is_no_request() -> None:
    """In a replay nothing leaves this machine."""
    recording = Recording.of(CASSETTES / SIMULATOR)
    cassette = CASSETTES / SIMULATOR / "plain.yaml"
    scenario = Scenario("other", "Something else", lambda _: True)

    with vcr.use_cassette(str(cassette), record_mode="none", **config_without([])):
        answer = ask(recording, scenario, Keys("any"), None)

    assert isinstance(answer, Failure)
    assert not isinstance(answer, ProviderReply)
