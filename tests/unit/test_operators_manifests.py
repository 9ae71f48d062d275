"""The units of systemd and the manifests of Kubernetes are valid, and fit callgate's commands, settings and times."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from callgate.adapters.catalogue_file import load_catalogue
from callgate.cli import build_app
from config.settings import WorkerOptions, WorkerSettings
from tests.unit.test_docs import settings_of

OPS = Path(__file__).parents[2] / "ops"
UNITS = sorted((OPS / "systemd").iterdir())
MANIFESTS = list(yaml.safe_load_all((OPS / "kubernetes" / "callgate.yaml").read_text("utf-8")))
PODS = [
    part["spec"]["template"]["spec"] for part in MANIFESTS if "template" in part.get("spec", {})
]
KUBERNETES = "1.34"
SHUTDOWN_S = WorkerOptions().shutdown_timeout_s


def is_command(words: list[str]) -> bool:
    """True if callgate has the command, with these options."""
    command: Any = get_command(build_app())
    command = command.commands[words[0]]
    names = {name for param in command.params for name in param.opts}
    return {word for word in words if word.startswith("-")} <= names


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command(unit: Path) -> None:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[method-assign, assignment]
    parsed.read(unit)

    program, *words = shlex.split(parsed["Service"]["ExecStart"])
    assert Path(program).name == "callgate"
    assert is_command(words)
    if words == ["worker"]:
        assert int(parsed["Service"]["TimeoutStopSec"]) > SHUTDOWN_S


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda part: part["metadata"]["name"])
def test_a_manifest_fits_the_schema_of_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_manifest_with_an_unknown_field_would_be_found() -> None:
    wrong = {**MANIFESTS[0], "dat": {}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["args"][-1])
def test_a_pod_runs_a_command_with_settings_that_exist(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]

    assert is_command(container["args"])
    assert {env["name"] for env in container["env"]} <= set(settings_of(WorkerSettings))
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in pod.get("volumes", [])}


def test_a_pod_with_a_worker_is_given_time_to_stop() -> None:
    workers = [pod for pod in PODS if pod["containers"][0]["args"][0] == "worker"]

    assert len(workers) == 2
    assert all(pod["terminationGracePeriodSeconds"] > SHUTDOWN_S for pod in workers)


def test_each_selector_finds_its_pods() -> None:
    labels = [
        part["spec"]["template"]["metadata"]["labels"]
        for part in MANIFESTS
        if part["kind"] == "Deployment"
    ]
    for part in MANIFESTS:
        selector = part.get("spec", {}).get("selector")
        if selector:
            assert selector.get("matchLabels", selector) in labels


def test_the_catalogue_of_the_manifests_is_one(tmp_path: Path) -> None:
    (text,) = [p["data"]["catalogue.toml"] for p in MANIFESTS if p["kind"] == "ConfigMap"]
    file = tmp_path / "catalogue.toml"
    file.write_text(text)

    assert load_catalogue(file).providers


def test_the_manifests_say_that_they_were_not_run() -> None:
    assert re.search(
        r"^# NOT RUN\.", (OPS / "kubernetes" / "callgate.yaml").read_text(), re.MULTILINE
    )
