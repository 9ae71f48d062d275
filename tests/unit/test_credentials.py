"""Where API keys come from, and that they are not shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from callgate.adapters.file_credentials import KEY_MAX_BYTES, FileCredentials
from callgate.domain.access import Access
from callgate.domain.errors import ConfigurationError


def credentials(folder: Path | None = None, **keys: str) -> FileCredentials:
    """Credentials with these keys; `__` stands for a dot in a name."""
    return FileCredentials(
        {name.replace("__", "."): SecretStr(key) for name, key in keys.items()}, folder
    )


@pytest.mark.parametrize(
    ("keys", "files", "expected"),
    [
        ({}, {}, None),
        ({"openai": "given"}, {}, "given"),
        ({}, {"openai": "mounted"}, "mounted"),
        ({"openai": "given"}, {"openai": "mounted"}, "mounted"),
        ({"openai": "given", "openai.acme": "own"}, {}, "own"),
        ({"openai": "given"}, {"openai.acme": "own"}, "own"),
        ({"openai.acme": "own"}, {"openai": "mounted"}, "own"),
        ({"openai.acme": "given"}, {"openai.acme": "own"}, "own"),
        ({"openai.other": "x", "anthropic": "y"}, {"anthropic.acme": "z"}, None),
        ({"openai": ""}, {}, None),
        ({"openai": "given", "openai.acme": " "}, {}, "given"),
    ],
    ids=str,
)
def test_an_own_key_comes_first_and_a_file_before_a_setting(
    tmp_path: Path, keys: Mapping[str, str], files: Mapping[str, str], expected: str | None
) -> None:
    """The organisation's own key, else the provider's, else None."""
    for name, key in files.items():
        (tmp_path / name).write_text(key)
    found = FileCredentials({name: SecretStr(key) for name, key in keys.items()}, tmp_path)

    assert found.access("openai", "acme").key == expected


def test_space_around_a_key_is_not_part_of_it(tmp_path: Path) -> None:
    """Editors end files with a line break."""
    (tmp_path / "openai").write_text("  sk-1\r\n")

    assert credentials(tmp_path, anthropic=" sk-2\n").access("openai", "acme").key == "sk-1"
    assert credentials(tmp_path, anthropic=" sk-2\n").access("anthropic", "acme").key == "sk-2"


def test_a_rewritten_file_is_read_again(tmp_path: Path) -> None:
    """A rotated key needs no restart."""
    file = tmp_path / "openai"
    file.write_text("sk-old")
    found = credentials(tmp_path)
    assert found.access("openai", "acme").key == "sk-old"

    file.write_text("sk-brand-new")

    assert found.access("openai", "acme").key == "sk-brand-new"


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    """Also with the size and time of the old one."""
    file, other = tmp_path / "openai", tmp_path / "other"
    file.write_text("sk-1")
    found = credentials(tmp_path)
    assert found.access("openai", "acme").key == "sk-1"

    other.write_text("sk-2")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)

    assert found.access("openai", "acme").key == "sk-2"


def test_a_mounted_secret_can_be_swapped(tmp_path: Path) -> None:
    """Kubernetes swaps a link to a folder; the files' own links stay the same."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "openai").write_text(f"sk-{version}")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "openai").symlink_to("..data/openai")
    found = credentials(tmp_path)
    assert found.access("openai", "acme").key == "sk-1"

    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").replace(tmp_path / "..data")

    assert found.access("openai", "acme").key == "sk-2"


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request costs a `stat`, not a read."""
    (tmp_path / "openai").write_text("sk-1")
    found = credentials(tmp_path)
    found.access("openai", "acme")

    monkeypatch.setattr(Path, "open", None)

    assert found.access("openai", "acme").key == "sk-1"


def test_a_removed_files_key_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "openai.acme"
    file.write_text("own")
    found = credentials(tmp_path, openai="given")
    assert found.access("openai", "acme").key == "own"

    file.unlink()

    assert found.access("openai", "acme").key == "given"


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"two words", b"sk\x00-1", b"\xff\xfe", b"x" * 9000]
)
def test_a_file_without_a_key_does_not_fall_back(tmp_path: Path, content: bytes) -> None:
    """A broken file must not charge the organisation's calls to the provider's common key."""
    (tmp_path / "openai.acme").write_bytes(content)
    found = credentials(tmp_path, openai="given")

    assert found.access("openai", "acme").key is None
    assert found.access("openai", "other").key == "given"


def test_a_file_that_is_being_rewritten_keeps_its_key(tmp_path: Path) -> None:
    """Between truncating and writing the file is empty."""
    file = tmp_path / "openai"
    file.write_text("sk-1")
    found = credentials(tmp_path)
    assert found.access("openai", "acme").key == "sk-1"

    file.write_text("")
    assert found.access("openai", "acme").key == "sk-1"

    file.write_text("sk-22")
    assert found.access("openai", "acme").key == "sk-22"


@pytest.mark.parametrize("org_id", ["../../outside", "a/b", "..", ".", "/etc/passwd"])
def test_an_organisation_cannot_point_outside_the_folder(tmp_path: Path, org_id: str) -> None:
    """Its id is a name, not a path."""
    folder = tmp_path / "in" / "secrets"
    (folder / "openai.a").mkdir(parents=True)
    (folder / "openai.a" / "b").write_text("stolen")
    (tmp_path / "outside").write_text("stolen")
    (folder / "openai.." / "..").mkdir(parents=True, exist_ok=True)

    assert credentials(folder).access("openai", org_id).key is None


def test_a_missing_folder_holds_no_keys(tmp_path: Path) -> None:
    """It may be mounted later."""
    found = credentials(tmp_path / "later", openai="given")
    assert found.access("openai", "acme").key == "given"

    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "openai").write_text("mounted")

    assert found.access("openai", "acme").key == "mounted"


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Reading it could block without end."""
    os.mkfifo(tmp_path / "openai")

    assert credentials(tmp_path).access("openai", "acme").key is None


@pytest.mark.parametrize("key", ["two words", "sk-\n1", "sk-\u00fc", "sk-\x00"])
def test_a_key_that_cannot_be_sent_stops_the_process(key: str) -> None:
    """The error does not show it."""
    with pytest.raises(ConfigurationError) as raised:
        credentials(openai=key)

    assert "'openai'" in str(raised.value)
    assert key not in str(raised.value)


def test_keys_are_not_shown(tmp_path: Path) -> None:
    """Neither by repr nor by attributes."""
    (tmp_path / "openai").write_text("sk-mounted")
    found = credentials(tmp_path, anthropic="sk-given")
    found.access("openai", "acme")

    shown = f"{found!r} {found!s} {vars(found)}"

    assert "sk-" not in shown
    assert "anthropic" in shown


def test_a_key_at_the_size_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "openai").write_text("k" * KEY_MAX_BYTES)

    assert credentials(tmp_path).access("openai", "acme").key == "k" * KEY_MAX_BYTES


URL = "https://acme.example.com/v1"


@pytest.mark.parametrize(
    ("keys", "files", "expected"),
    [
        ({"p": "common", "p.acme": "own", "p.acme.url": URL}, {}, Access("own", "acme", URL)),
        ({"p": "common"}, {"p.acme": "own", "p.acme.url": f" {URL}\n"}, Access("own", "acme", URL)),
        ({"p": "common"}, {"p.acme": "own"}, Access("own", "acme")),
        ({"p": "common"}, {"p.acme.url": URL}, Access(None, "acme", URL)),
        ({"p": "common", "p.acme.url": URL}, {}, Access(None, "acme", URL)),
        ({"p": "common"}, {"p.acme": "own", "p.acme.url": "two words"}, Access("own", "acme", "")),
        ({"p": "common"}, {"p.other": "own", "p.other.url": URL}, Access("common")),
        ({"p": "common"}, {"p.url": URL}, Access("common")),
        ({}, {}, Access(None)),
    ],
    ids=str,
)
def test_an_own_endpoint_goes_with_an_own_key(
    tmp_path: Path, keys: Mapping[str, str], files: Mapping[str, str], expected: Access
) -> None:
    """The provider's key never goes with an organisation's endpoint."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = FileCredentials({name: SecretStr(key) for name, key in keys.items()}, tmp_path)

    assert found.access("p", "acme") == expected


def test_an_endpoint_is_no_other_organisations_key(tmp_path: Path) -> None:
    """`p.acme.url` could be the key of an organisation `acme.url`. It would be sent to the provider."""
    (tmp_path / "p.acme.url").write_text(URL)
    found = credentials(tmp_path, p="common")

    assert found.access("p", "acme.url") == Access(None, "acme.url")
    assert found.access("p", "other.url") == Access("common")


def test_a_rewritten_endpoint_is_read_again(tmp_path: Path) -> None:
    """Rotation needs no restart; a file that is being written keeps what it had."""
    file = tmp_path / "p.acme.url"
    file.write_text(URL)
    found = credentials(tmp_path, p__acme="own")
    assert found.access("p", "acme").endpoint == URL

    file.write_text("")
    assert found.access("p", "acme").endpoint == URL

    file.write_text(URL + "/new")
    assert found.access("p", "acme").endpoint == URL + "/new"

    file.unlink()
    assert found.access("p", "acme").endpoint is None


def test_neither_key_nor_endpoint_is_shown() -> None:
    assert repr(Access("sk-1", "acme", URL)) == "Access(owner='acme')"
