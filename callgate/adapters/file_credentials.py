"""
API keys from files and settings.

A key is named `provider`, or `provider.org` for an organisation's own. A file of that name in the folder (as Docker and
Kubernetes mount secrets) comes before a key from the settings, and is read again when it has changed.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from callgate.domain.errors import ConfigurationError

KEY_BYTES_MAX = 8 * 1024
"""A longer file is no key."""
_NO_KEY = SecretStr("")


@dataclass(frozen=True, slots=True)
class _ReadFile:
    version: tuple[int, ...]
    key: SecretStr


class FileCredentials:
    """
    Finds keys in a folder, then among those given at the start.

    A file without a usable key in it (empty, unreadable, not one word of printable ASCII) keeps the key
    read before; if there was none, it means "no key" and never "somebody else's key". A removed file takes
    its key along.

    Cost: at most two `stat` calls per request, a read after a change only.

    Warning: names are looked for as they are written, upper and lower case. An organisation whose id holds a
    `/` can have its own key only in the settings. A provider named `a.b` shares its file with the organisation
    `b` of a provider `a`: give providers names without dots.

    Args:
        keys: API keys by `provider` or `provider.org`; empty ones count as not given.
        folder: Where secrets are mounted; None if they are not.

    Raises:
        ConfigurationError: A given key could not be sent in a header.
    """

    def __init__(self, keys: Mapping[str, SecretStr], folder: Path | None) -> None:
        self._keys = {name: key for name, key in keys.items() if key.get_secret_value().strip()}
        self._folder = folder
        self._read: dict[str, _ReadFile] = {}
        for name, key in self._keys.items():
            if not _usable(key.get_secret_value()):
                raise ConfigurationError(f"the API key {name!r} is not one word of printable ASCII")

    def __repr__(self) -> str:
        return f"FileCredentials(keys={sorted(self._keys)}, folder={str(self._folder)!r})"

    def api_key(self, provider: str, org_id: str) -> str | None:
        """The organisation's own key, else the provider's, else None."""
        for name in (f"{provider}.{org_id}", provider):
            key = self._in_folder(name)
            if key is None:
                key = self._keys.get(name)
            if key is not None:
                return key.get_secret_value().strip() or None
        return None

    def has_own_key(self, provider: str, org_id: str) -> bool:
        """True if the organisation has a key, or a file for one, of its own."""
        name = f"{provider}.{org_id}"
        return self._in_folder(name) is not None or name in self._keys

    def _in_folder(self, name: str) -> SecretStr | None:
        """The key in the file of that name; None if there is no such file."""
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


def _version(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is rewritten or replaced, through links too; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def _key_in(path: Path) -> SecretStr | None:
    try:
        with path.open("rb") as file:
            text = file.read(KEY_BYTES_MAX + 1).decode("ascii", errors="replace")
    except OSError:
        return None
    return SecretStr(text.strip()) if len(text) <= KEY_BYTES_MAX and _usable(text) else None


def _usable(key: str) -> bool:
    key = key.strip()
    return key.isascii() and key.isprintable() and len(key.split()) == 1
