"""
Reads API keys and organisations' endpoints from files and settings.

A key's name is `provider`, or `provider.org` for an organisation's own key. `provider.org.url` is the base URL of that
organisation's own endpoint. A file of that name in the secrets folder (as Docker and Kubernetes mount it) takes
precedence over the settings. It is read again when it changes.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from callgate.domain.access import Access
from callgate.domain.errors import ConfigurationError

KEY_BYTES_MAX = 8 * 1024
"""A longer file does not hold a key."""
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
            return Access(_text(self._found(provider)) or None)
        return Access(_text(own) or None, org_id, None if endpoint is None else _text(endpoint))

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
            text = file.read(KEY_BYTES_MAX + 1).decode("ascii", errors="replace")
    except OSError:
        return None
    return SecretStr(text.strip()) if len(text) <= KEY_BYTES_MAX and _is_usable(text) else None


def _is_usable(key: str) -> bool:
    """True for one word of printable ASCII, with spaces around it or not."""
    key = key.strip()
    return key.isascii() and key.isprintable() and len(key.split()) == 1
