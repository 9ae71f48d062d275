"""
Checks proxies, certificates and base URLs before the first request.

The transport reads these environment variables itself, when it makes its client or a connection. A missing certificate
file or an unsupported proxy would fail every request of a worker that has reported itself ready.

Messages never quote a URL, because it may hold a password.
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
"""File names that OpenSSL reads in a folder of certificates. Source: openssl-rehash(1)."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The first that is set is used."""
SCHEMES = ("http", "https")
"""Supported schemes of providers and proxies. aiohttp would treat `socks5` as HTTP."""
ESCAPES = "special characters in a user or password must be escaped, # as %23"


def check_environment(providers: Mapping[str, ProviderEntry]) -> None:
    """
    Check that this process can send requests to every provider.

    Raises:
        ConfigurationError: It cannot, at all or to one provider. The message names each variable or catalogue key.
    """
    # First and alone: with a bad key log file even the import of aiohttp fails.
    faults = list(_key_log_faults())
    if not faults:
        faults = [*_certificate_faults(), *_proxy_faults()] or list(_client_faults())
        faults += _address_faults(providers)
    if faults:
        raise ConfigurationError("; ".join(faults))


def variables_in_use() -> list[str]:
    """Names of the variables that change how requests leave this process: certificates and proxies."""
    certificates = [name for name in CERTIFICATES if os.environ.get(name)][:1]
    proxies = [_variable(f"{name}_proxy") for name in _proxies()]
    exceptions = [_variable("no_proxy")] if proxies and getproxies().get("no") else []
    return [*certificates, *proxies, *exceptions]


def has_proxy() -> bool:
    """Whether requests leave this process through a proxy."""
    return bool(_proxies())


def _key_log_faults() -> Iterator[str]:
    """A fault if the TLS key log cannot be written."""
    if file := os.environ.get("SSLKEYLOGFILE"):
        try:
            ssl.create_default_context()
        except OSError as exc:
            yield f"SSLKEYLOGFILE {file!r} cannot be written ({_why(exc)})"


def _certificate_faults() -> Iterator[str]:
    """SSL_CERT_FILE takes precedence: with it SSL_CERT_DIR is ignored."""
    if file := os.environ.get("SSL_CERT_FILE"):
        if fault := _file_fault(file):
            yield f"SSL_CERT_FILE {file!r} cannot be used: {fault}"
    elif (folders := os.environ.get("SSL_CERT_DIR")) and not _has_certificates(folders):
        yield (
            f"SSL_CERT_DIR {folders!r} cannot be used: it has no readable certificate whose file name is its hash"
            " (openssl rehash)"
        )


def _file_fault(file: str) -> str | None:
    """Why a certificate file cannot be used; None if it can."""
    try:
        context = ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as exc:
        return _why(exc)
    return None if context.cert_store_stats()["x509"] else "no certificate in it"


def _has_certificates(folders: str) -> bool:
    """True if one of the folders has a usable certificate. OpenSSL skips missing folders."""
    return any(
        HASHED_NAME.fullmatch(file.name) and _file_fault(str(file)) is None
        for folder in folders.split(os.pathsep)
        for file in _files(Path(folder))
    )


def _files(folder: Path) -> list[Path]:
    """The entries of a folder; empty if it cannot be read."""
    try:
        return list(folder.iterdir())
    except (OSError, ValueError):
        return []


def _why(exc: Exception) -> str:
    """The reason in words, without the exception's text."""
    if isinstance(exc, ssl.SSLError):
        return "no certificate in it can be read"
    return (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__


def _proxy_faults() -> Iterator[str]:
    """A fault for each used proxy variable with an unusable URL."""
    proxies = _proxies()
    for scheme, url in proxies.items():
        if fault := _proxy_fault(url):
            yield f"{_variable(f'{scheme}_proxy')} {fault}"


def _proxies() -> dict[str, str]:
    """URLs of the proxies that requests may use, by `http`, `https` and `all`."""
    found = getproxies()
    if "*" in (host.strip() for host in found.get("no", "").split(",")):
        return {}
    used = SCHEMES if all(found.get(scheme) for scheme in SCHEMES) else (*SCHEMES, "all")
    return {scheme: found[scheme] for scheme in used if found.get(scheme)}


def _proxy_fault(url: str) -> str | None:
    """What is wrong with a proxy URL, as the end of a sentence; None if it can be used."""
    scheme, has_scheme, _ = url.partition("://")
    if has_scheme and scheme.lower() not in SCHEMES:
        return "names an unsupported kind of proxy: it must start with http:// or https://"
    try:
        proxy = httpx2.Proxy(url if has_scheme else f"http://{url}")
        user, password = proxy.auth or ("", "")
        f"{user}:{password}".encode("latin-1")
    except (ValueError, httpx2.InvalidURL):
        return f"is not a proxy URL; {ESCAPES}"
    rest = proxy.url.raw_path.decode("ascii") + proxy.url.fragment
    if not _is_address(str(proxy.url)) or url.split() != [url] or "@" in rest or ":" in user:
        return f"is not a proxy URL; {ESCAPES}"
    return None


def _variable(name: str) -> str:
    """The variable's name as the environment spells it; lower case wins, as in `urllib.request.getproxies`."""
    written = (variable for variable in os.environ if variable.lower() == name)
    return name if os.environ.get(name) else next(written, f"the system's {name}")


def _client_faults() -> Iterator[str]:
    """Faults that only making a client shows, for example a NO_PROXY pattern that cannot be parsed."""
    from callgate.adapters.providers.http.client import http_client

    try:
        http_client(1)
    except Exception as exc:
        variables = [_variable(f"{name}_proxy") for name in ("all", "no") if getproxies().get(name)]
        names = " or ".join(variables) or "something in the environment"
        yield f"{names} cannot be used: the HTTP client cannot be made ({type(exc).__name__})"


def _address_faults(providers: Mapping[str, ProviderEntry]) -> Iterator[str]:
    """A fault for each provider whose base URL cannot be called."""
    for name, entry in providers.items():
        if entry.base_url is not None and (fault := _address_fault(entry.base_url)):
            yield f"the catalogue's providers.{name}.base_url cannot be called: {fault}"


def _address_fault(url: str) -> str | None:
    """What is wrong with a base URL; None if it can be called."""
    if url.split() != [url] or not _is_address(url):
        return "it must be http:// or https://, a host, and a path, for example /v1"
    parsed = httpx2.URL(url)
    if parsed.userinfo:
        return "a user or password belongs in the credentials"
    if parsed.query or parsed.fragment:
        return "it must end with its path, because requests append to the path"
    return None


def _is_address(url: str) -> bool:
    """True if the parsers of httpx and of aiohttp (yarl) both find an HTTP scheme, a host and a port other than 0."""
    try:
        parsed = httpx2.URL(url)
        seen = URL(str(parsed))
        return parsed.scheme in SCHEMES and bool(parsed.host and seen.host) and seen.port != 0
    except (ValueError, httpx2.InvalidURL):
        return False
