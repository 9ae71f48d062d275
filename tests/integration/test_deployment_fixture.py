"""The fixture of the testing kit that runs real servers, as docs/testing.md uses it; and the simulator's page."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from callgate.adapters.catalogue_file import load_catalogue
from devkit.simulator.script import RULES, Kind
from tests.support.page_blocks import blocks_of, run_python

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_about_tests_is_right_about_it(callgate_deployment: Any) -> None:
    run_python(DOCS / "testing.md")["test_on_real_servers"](callgate_deployment)

    assert callgate_deployment.simulator.counts().total == 1
    assert set(callgate_deployment.environ) == {
        "CALLGATE_DATABASE_URL",
        "CALLGATE_BROKER_URL",
        "CALLGATE_CATALOGUE",
    }


def test_the_blocks_of_the_simulators_page_are_right(tmp_path: Path) -> None:
    page = DOCS / "simulator.md"
    texts = {block.language: block.text for block in blocks_of(page)}
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(texts["toml"])

    loaded = load_catalogue(catalogue)
    assert loaded.providers["simulator"].unlimited
    assert [(row.provider, row.model) for row in loaded.prices] == [("simulator", "simulator")]
    assert len(RULES.validate_json(texts["json"])) == 3
    assert all(f"`{kind}`" in page.read_text() for kind in Kind)
    run_python(page)


def test_the_command_serves_a_script(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"reply": [{"text": "Paris"}]}]')
    command = [sys.executable, "-m", "callgate", "simulator", str(rules), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout is not None
        listening = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        assert listening["base_url"] == f"http://127.0.0.1:{listening['port']}/v1"
        assert _answer_of(listening["port"]) == "Paris"
    finally:
        process.terminate()
        code = process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
    assert code == 0


def test_the_command_refuses_a_script_that_is_none(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"reply": []}]')

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "callgate", "simulator", str(rules)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert "cannot be used" in done.stderr


def _answer_of(port: int) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = json.load(connection.getresponse())
    finally:
        connection.close()
    return str(answer["choices"][0]["message"]["content"])
