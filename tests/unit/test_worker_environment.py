"""The doctor's checks of a worker's settings, its folder of secrets, and its certificate and proxy variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.providers.http.environment import variables_in_use
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.services.doctor import Finding, FindingStatus, run_checks
from callgate.settings import ClientSettings
from tests.support.openai_attempts import unset_proxies
from worker.doctor_checks import secrets_folder, worker_checks

CATALOGUE = Catalogue(providers={"openai": ProviderEntry(), "groq": ProviderEntry()})
OK, WARN, FAIL = FindingStatus


def findings() -> dict[str, Finding]:
    client = ClientSettings(
        database_url=SecretStr("postgresql://u@127.0.0.1:1/x"),
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
    )
    return {f.name: f for f in run_checks(worker_checks(client, CATALOGUE))}


def test_settings_that_contradict_each_other_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings()["worker settings"].status is OK
    monkeypatch.setenv("CALLGATE_WORKER__SHUTDOWN_TIMEOUT_S", "1")

    finding = findings()["worker settings"]

    assert finding.status is FAIL
    assert "must exceed the longest deadline" in finding.sentence


def test_a_folder_that_is_not_there_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings()["secrets folder"].status is OK
    monkeypatch.setenv("CALLGATE_WORKER__CREDENTIALS_DIR", str(tmp_path / "none"))

    finding = findings()["secrets folder"]

    assert finding.status is FAIL
    assert "cannot be read (No such file or directory)" in finding.sentence
    assert "Mount the folder" in finding.todo


def test_a_folder_that_may_not_be_read_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A superuser may read everything, so the refusal is the file system's in words only."""

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)

    seen = secrets_folder(tmp_path, CATALOGUE)

    assert seen.status is FAIL
    assert "cannot be read (Permission denied)" in seen.sentence


def test_files_that_are_no_key_are_named_and_not_quoted(tmp_path: Path) -> None:
    for name, content in (
        ("openai", "sk-good"),
        ("openai.acme.url", "https://acme.openai.azure.com"),
        ("groq", "two words secret"),
        ("groq.acme", ""),
        ("opnai", "sk-secret"),
        (".hidden", "two words"),
    ):
        (tmp_path / name).write_text(content)
    (tmp_path / "..data").mkdir()

    seen = secrets_folder(tmp_path, CATALOGUE)

    assert seen.status is WARN
    assert "groq has no usable key" in seen.sentence
    assert "groq.acme has no usable key" in seen.sentence
    assert "opnai is of no provider in the catalogue" in seen.sentence
    assert "secret" not in seen.sentence
    assert "openai.acme" not in seen.sentence
    assert FileCredentials({}, None).folder_faults([]) == []


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openai").write_text("sk-good")
    assert secrets_folder(tmp_path, CATALOGUE).status is OK
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert "openai cannot be read" in secrets_folder(tmp_path, CATALOGUE).sentence


def test_variables_that_change_requests_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their values may hold passwords."""
    unset_proxies(monkeypatch)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert variables_in_use() == []
    monkeypatch.setenv("SSL_CERT_DIR", "/certificates")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    assert variables_in_use() == ["SSL_CERT_DIR", "HTTPS_PROXY", "NO_PROXY"]
    monkeypatch.setenv("SSL_CERT_FILE", "/ca.pem")
    assert variables_in_use()[0] == "SSL_CERT_FILE"
