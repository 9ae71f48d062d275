"""Other accounts of the machine and changed image registries: files are private, images are pinned."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from devkit.servers.data_folder import held
from devkit.servers.server import private
from tests.support.deployment import CHECKOUT
from worker.tied_process import tied

COMPOSE = CHECKOUT / "docker-compose.yml"
PINNED = re.compile(r"[a-z/]+:\d+\.\d+(\.\d+)?(-[a-z-]+)?@sha256:[0-9a-f]{64}")
"""A name, the full version for readers, and the digest that counts."""
LOOSE_UMASK = 0o000
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def typed() -> str:
    """The commands in the header of docker-compose.yml, up to the one that needs a container engine."""
    head = COMPOSE.read_text().split("\nx-callgate", 1)[0].splitlines()
    lines = [line.removeprefix("#   ") for line in head if line.startswith("#   ")]
    return "\n".join(lines[: lines.index("docker compose up --build")])


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_typed_commands_create_private_files(tmp_path: Path, shell: str) -> None:
    """With an open umask, and over files that were readable before."""
    (tmp_path / ".env").touch()
    (tmp_path / ".env").chmod(0o666)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, does in {"sudo": 'echo "$@" > sudo.txt', "openssl": "echo 0123abcd"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)

    subprocess.run(  # noqa: S603
        [f"/bin/{shell}", "-euc", typed()],
        cwd=tmp_path,
        env={"PATH": f"{programs}:{os.defpath}"},
        input=b"sk-test\n",
        umask=LOOSE_UMASK,
        check=True,
    )

    modes = {name: mode(tmp_path / name) for name in (".env", "secrets", "secrets/openai")}
    assert modes == {".env": 0o600, "secrets": 0o700, "secrets/openai": 0o600}
    variables = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert set(variables) == set(re.findall(r"\$\{(CALLGATE_\w+):\?", COMPOSE.read_text()))
    assert (tmp_path / "secrets/openai").read_text() == "sk-test\n"
    # The owner is the image's account; otherwise its workers could not read their keys.
    uid = re.search(r"--uid (\d+)", (CHECKOUT / "Dockerfile").read_text())
    assert uid
    assert (tmp_path / "sudo.txt").read_text() == f"chown -R {uid[1]} secrets\n"


def test_git_and_the_image_never_see_a_secret() -> None:
    """Git ignores both, and the image copies named folders only."""
    ignored = (CHECKOUT / ".gitignore").read_text().splitlines()
    let_in = (CHECKOUT / ".dockerignore").read_text().splitlines()

    assert {".env*", "secrets/", ".callgate/"} <= set(ignored)
    assert "*" in let_in
    assert not [line for line in let_in if "secret" in line.removeprefix("#") and "!" in line]
    assert "!.env" not in let_in


def test_images_are_pinned_by_digest() -> None:
    """A tag can be moved between two pulls; a digest cannot."""
    services = yaml.safe_load(re.sub(r"\$\{[^}]*\}", "x", COMPOSE.read_text()))["services"]
    pulled = {s["image"] for s in services.values() if "build" not in s}
    based = re.findall(r"^FROM (\S+)", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)

    images = [*pulled, *based]
    assert len(images) == 3
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_files_of_embedded_servers_are_private(tmp_path: Path) -> None:
    """Logs, ports, data and later files, with any umask, and also files that were readable before."""
    data = tmp_path / "data"
    run = (
        "import sys; from devkit.servers.embedded import DevServers\n"
        "with DevServers(sys.argv[1], fsync=False) as e:\n"
        "    import redis; r = redis.Redis.from_url(e.broker_url); r.set('a', 'b'); r.save()\n"
    )
    for _ in range(2):
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", run, str(data)], cwd=CHECKOUT, umask=LOOSE_UMASK, check=True
        )
        found = list(data.rglob("*"))
        open_to_others = {p: oct(mode(p)) for p in found if p.is_file() and mode(p) & OTHERS}
        names = {"postgres.log", "valkey.log", "valkey.port", "lock", "dump.rdb"}
        assert names <= {path.name for path in found}
        assert open_to_others == {}
        for folder in ("postgres", "valkey"):
            assert mode(data / folder) == 0o700
        # No other account may list it. The servers' account may pass through if the tests run as root.
        assert mode(data) == (0o711 if os.geteuid() == 0 else 0o700)
        # The modes that an earlier version left.
        for path in found:
            if path.suffix in (".log", ".port") or path.name == "lock":
                path.chmod(0o644)
        (data / "valkey").chmod(0o755)


def test_files_of_tied_processes_are_private(tmp_path: Path) -> None:
    """Workers of the demo, proxies and servers all start with the same program."""
    script = tied([sys.executable, "-c", "open('made', 'w').close()"])

    subprocess.run(script, cwd=tmp_path, umask=LOOSE_UMASK, check=True)  # noqa: S603

    assert mode(tmp_path / "made") == 0o600


def test_a_readable_log_becomes_private(tmp_path: Path) -> None:
    """A log of an earlier version is private from the next start on."""
    log = tmp_path / "server.log"
    log.touch()
    log.chmod(0o644)

    with open(log, "ab", opener=private):
        pass

    assert mode(log) == 0o600


def test_an_existing_data_folder_keeps_its_mode(tmp_path: Path) -> None:
    """It may hold other files. Files that callgate adds are private."""
    tmp_path.chmod(0o755)

    with held(tmp_path):
        pass

    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "lock") == 0o600
