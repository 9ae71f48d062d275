"""
Reads API keys and organisations' endpoints from files and settings.

A key's name is `provider`, or `provider.org` for an organisation's own key. `provider.org.url` is the base URL of that
organisation's own endpoint. A file of that name in the secrets folder (as Docker and Kubernetes mount it) takes
precedence over the settings. It is read again when it changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import SecretStr

from callgate.domain.access import Access
from callgate.domain.errors import ConfigurationError

KEY_MAX_BYTES = 8 * 1024
"""A longer file does not hold a key."""
FILES_MAX = 10_000
"""Files of the folder that are looked at for any key."""
URL_SUFFIX = ".url"
"""The end of the name of an endpoint."""
_NO_KEY = SecretStr("")


@dataclass(frozen=True, slots=True)
class _ReadFile:
    version: tuple[int, ...]
    key: SecretStr


class FileCredentials:
    """
    `CredentialsPort` over a folder of secrets and the keys from the settings.

    A file without a usable key (empty, unreadable, not one word of printable ASCII) keeps the key that was read before.
    If there was none, the organisation has no key; it never falls back to the provider's. When a file is removed, its
    key is gone.

    Cost: at most three `stat` calls per request. A file is read only after a change.

    Warning: names are case-sensitive. An organisation whose id has a `/` can have its own key only in the settings. The
    provider `a.b` and the organisation `b` of the provider `a` share a file: avoid dots in provider names. An
    organisation whose id ends with `.url` cannot have its own key.

    Args:
        keys: API keys by `provider` or `provider.org`. Empty ones are ignored.
        folder: Where secrets are mounted, or None.

    Raises:
        ConfigurationError: A key cannot be sent in a header.
    """

    def __init__(self, keys: Mapping[str, SecretStr], folder: Path | None) -> None:
        self._keys = {name: key for name, key in keys.items() if key.get_secret_value().strip()}
        self._folder = folder
        self._read: dict[str, _ReadFile] = {}
        for name, key in self._keys.items():
            if not _is_usable(key.get_secret_value()):
                raise ConfigurationError(f"the API key {name!r} is not one word of printable ASCII")

    def __repr__(self) -> str:
        return f"FileCredentials(keys={sorted(self._keys)}, folder={str(self._folder)!r})"

    def access(self, provider: str, org_id: str) -> Access:
        """See `CredentialsPort`. Files come before settings."""
        name = f"{provider}.{org_id}"
        own, endpoint = self._found(name), self._found(name + URL_SUFFIX)
        if org_id.endswith(URL_SUFFIX) and own is not None:
            # Its key would be another organisation's endpoint.
            own = _NO_KEY
        if own is None and endpoint is None:
            return Access(_text(self._found(provider)) or None, has_folder=self.has_folder)
        url = None if endpoint is None else _text(endpoint)
        return Access(_text(own) or None, org_id, url, self.has_folder)

    @property
    def has_folder(self) -> bool:
        """Whether there is a folder of secrets: only what is in its files is found without a restart."""
        return self._folder is not None

    def has_any(self, provider: str) -> bool:
        """Whether the provider, or any organisation of it, has a usable key."""
        return bool(self.keys(provider))

    def keys(self, provider: str) -> set[str]:
        """The names of the provider's usable keys: its own name, and `provider.org` for each key of an organisation."""
        names = {name for name in self._keys if _is_key_of(provider, name)}
        if self._folder is not None:
            try:
                found = [path.name for path in islice(self._folder.iterdir(), FILES_MAX)]
            except OSError:
                found = []
            names.update(name for name in found if _is_key_of(provider, name))
        return {name for name in names if _text(self._found(name))}

    def folder_faults(self, providers: Collection[str]) -> list[str]:
        """
        What is wrong with the folder of secrets: it cannot be read, or a file has no usable key or no provider.

        Only names are named. Files that begin with a dot are left out: Kubernetes has some.
        """
        if self._folder is None:
            return []
        try:
            files = sorted(islice(self._folder.iterdir(), FILES_MAX))
        except OSError as exc:
            return [f"it cannot be read ({exc.strerror})"]
        return [fault for file in files if (fault := _fault_of(file, providers))]

    def _found(self, name: str) -> SecretStr | None:
        """What the file or setting of that name has; empty if the file has nothing usable, None if there is none."""
        found = self._key_from_file(name)
        return self._keys.get(name) if found is None else found

    def _key_from_file(self, name: str) -> SecretStr | None:
        """The key in the file of that name, empty if it has none; None if there is no such file."""
        if self._folder is None or "/" in name:
            return None
        path = self._folder / name
        version = _version(path)
        if version is None:
            self._read.pop(name, None)
            return None
        known = self._read.get(name)
        if known is None or known.version != version:
            known = _ReadFile(version, _key_in(path) or (known.key if known else _NO_KEY))
            self._read[name] = known
        return known.key


def _is_key_of(provider: str, name: str) -> bool:
    is_its_own = name == provider or name.startswith(f"{provider}.")
    return is_its_own and not name.endswith(URL_SUFFIX)


def _fault_of(file: Path, providers: Collection[str]) -> str | None:
    """What is wrong with a file of the folder; None if it is a provider's key or endpoint."""
    name = file.name
    if name.startswith(".") or not file.is_file():
        return None
    if not any(name == p or name.startswith(f"{p}.") for p in providers):
        return f"{name} is of no provider in the catalogue"
    if not os.access(file, os.R_OK):
        return f"{name} cannot be read"
    return None if _key_in(file) else f"{name} has no usable key (one word of printable ASCII)"


def _text(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value().strip()


def _version(path: Path) -> tuple[int, ...] | None:
    """Values that change when a file is rewritten or replaced, also behind a link; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def _key_in(path: Path) -> SecretStr | None:
    """Read a file's key; None if it cannot be read or is not usable."""
    try:
        with path.open("rb") as file:
            text = file.read(KEY_MAX_BYTES + 1).decode("ascii", errors="replace")
    except OSError:
        return None
    return SecretStr(text.strip()) if len(text) <= KEY_MAX_BYTES and _is_usable(text) else None


def _is_usable(key: str) -> bool:
    """True for one word of printable ASCII, with spaces around it or not."""
    key = key.strip()
    return key.isascii() and key.isprintable() and len(key.split()) == 1
