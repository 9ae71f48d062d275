"""
What can be found wrong with the way to the providers before the first request takes it.

The transport reads these variables itself, when its client is made or when a connection is: a certificate file that is
not there, or a proxy of a kind that it does not speak to, would fail every request of a worker that says it is ready.

Nothing of a URL is repeated in a message, for it may hold a password.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import getproxies

import httpx2
from yarl import URL

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.errors import ConfigurationError

HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")
"""What OpenSSL looks for in a folder of certificates. Source: openssl-rehash(1)."""
SCHEMES = ("http", "https")
"""What aiohttp speaks, to providers and to proxies. It takes `socks5` for HTTP."""
ESCAPES = "a user or password is written with its special characters escaped, %23 for #"


def check_environment(providers: Mapping[str, ProviderEntry]) -> None:
    """
    Assert that requests can leave this process.

    Raises:
        ConfigurationError: None can, or none to one of the providers; it names each variable or key in one line.
    """
    # First and alone: with such a file not even aiohttp can be imported.
    faults = list(_key_log_faults())
    if not faults:
        faults = [*_certificate_faults(), *_proxy_faults()] or list(_client_faults())
        faults += _address_faults(providers)
    if faults:
        raise ConfigurationError("; ".join(faults))


def _key_log_faults() -> Iterator[str]:
    if file := os.environ.get("SSLKEYLOGFILE"):
        try:
            ssl.create_default_context()
        except OSError as exc:
            yield f"SSLKEYLOGFILE {file!r} cannot be written ({_why(exc)})"


def _certificate_faults() -> Iterator[str]:
    """The file comes before the folder, which then counts for nothing."""
    if file := os.environ.get("SSL_CERT_FILE"):
        if fault := _file_fault(file):
            yield f"SSL_CERT_FILE {file!r} cannot be used: {fault}"
    elif (folders := os.environ.get("SSL_CERT_DIR")) and not _have_certificates(folders):
        yield (
            f"SSL_CERT_DIR {folders!r} cannot be used: no certificate there that can be read has its hash for a name"
            " (openssl rehash)"
        )


def _file_fault(file: str) -> str | None:
    try:
        context = ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as exc:
        return _why(exc)
    return None if context.cert_store_stats()["x509"] else "no certificate in it"


def _have_certificates(folders: str) -> bool:
    """OpenSSL passes over folders that are not there; it must find something in one."""
    return any(
        HASHED_NAME.fullmatch(file.name) and _file_fault(str(file)) is None
        for folder in folders.split(os.pathsep)
        for file in _files(Path(folder))
    )


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (OSError, ValueError):
        return []


def _why(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        return "no certificate in it can be read"
    return (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__


def _proxy_faults() -> Iterator[str]:
    proxies = _proxies()
    for scheme, url in proxies.items():
        if fault := _proxy_fault(url):
            yield f"{_variable(f'{scheme}_proxy')} {fault}"


def _proxies() -> dict[str, str]:
    """The proxies that requests may be sent through, by what they are for."""
    found = getproxies()
    if "*" in (host.strip() for host in found.get("no", "").split(",")):
        return {}
    used = SCHEMES if all(found.get(scheme) for scheme in SCHEMES) else (*SCHEMES, "all")
    return {scheme: found[scheme] for scheme in used if found.get(scheme)}


def _proxy_fault(url: str) -> str | None:
    scheme, has_scheme, _ = url.partition("://")
    if has_scheme and scheme.lower() not in SCHEMES:
        return (
            "names a proxy of a kind that is not supported: it must start with http:// or https://"
        )
    try:
        proxy = httpx2.Proxy(url if has_scheme else f"http://{url}")
        user, password = proxy.auth or ("", "")
        f"{user}:{password}".encode("latin-1")
    except (ValueError, httpx2.InvalidURL):
        return f"is no URL of a proxy; {ESCAPES}"
    rest = proxy.url.raw_path.decode("ascii") + proxy.url.fragment
    if not _is_address(str(proxy.url)) or url.split() != [url] or "@" in rest or ":" in user:
        return f"is no URL of a proxy; {ESCAPES}"
    return None


def _variable(name: str) -> str:
    """How the environment writes it; lower case comes first. Source: `urllib.request.getproxies_environment`."""
    written = (variable for variable in os.environ if variable.lower() == name)
    return name if os.environ.get(name) else next(written, f"the system's {name}")


def _client_faults() -> Iterator[str]:
    """What is left: a pattern of NO_PROXY that no parser takes, or a variable that only a newer transport reads."""
    from callgate.adapters.providers.openai.transport import http_client

    try:
        http_client(1)
    except Exception as exc:
        variables = [_variable(f"{name}_proxy") for name in ("all", "no") if getproxies().get(name)]
        names = " or ".join(variables) or "something in the environment"
        yield f"{names} cannot be used: the HTTP client cannot be made ({type(exc).__name__})"


def _address_faults(providers: Mapping[str, ProviderEntry]) -> Iterator[str]:
    for name, entry in providers.items():
        if entry.base_url is not None and (fault := _address_fault(entry.base_url)):
            yield f"the catalogue's providers.{name}.base_url cannot be called: {fault}"


def _address_fault(url: str) -> str | None:
    if url.split() != [url] or not _is_address(url):
        return "it must be http:// or https://, a host, and a path such as /v1"
    parsed = httpx2.URL(url)
    if parsed.userinfo:
        return "a user or password belongs into the credentials"
    if parsed.query or parsed.fragment:
        return "requests append to its path, which must be the last part of it"
    return None


def _is_address(url: str) -> bool:
    """True if httpx and aiohttp, each by its own parser, find a host to speak HTTP to."""
    try:
        parsed = httpx2.URL(url)
        seen = URL(str(parsed))
        return parsed.scheme in SCHEMES and bool(parsed.host and seen.host) and seen.port != 0
    except (ValueError, httpx2.InvalidURL):
        return False
