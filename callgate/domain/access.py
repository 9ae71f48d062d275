"""
Whose key and whose endpoint a request uses, and which endpoints of organisations an operator allows.

A pattern is a URL with `*`: `https://*.openai.azure.com/*`. In the host `*` stands for one label, and only in the first
place, so that no other host matches. In the path it stands for anything at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from callgate.domain.urls import PORTS, url_fault

URL_CHARS_MAX = 2_048
CHECKED_MAX = 1_024
"""Endpoints whose check is remembered."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts without TLS between."""
_PLAIN = re.compile(r"[!-~]+")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_STEP_UP = re.compile(r"(^|/)\.{1,2}(/|$)")


@dataclass(frozen=True, slots=True)
class Access:
    """What one organisation's requests to one provider use."""

    key: str | None = field(repr=False)
    """None: there is no key that may be used."""
    owner: str = ""
    """The organisation whose own key or endpoint it is; empty: the provider's key, at the provider's endpoint."""
    endpoint: str | None = field(default=None, repr=False)
    """The organisation's own base URL, unchecked; empty if its file cannot be used. None: the provider's."""
    has_folder: bool = field(default=False, compare=False, repr=False)
    """Whether keys are looked for in a folder of secrets too."""


def pattern_fault(pattern: str, base_url: str | None) -> str | None:
    """Say why a pattern of `org_endpoints` cannot be used, without quoting it; None if it can."""
    literal = pattern.replace("://*.", "://any.", 1)
    host_and_path = literal.removesuffix("*")
    if "*" in host_and_path or (
        literal != host_and_path and "/" not in literal.partition("://")[2]
    ):
        return "`*` may be the first label of the host, and the end of the path: https://*.example.com/*"
    if why := _fault(host_and_path):
        return why
    parts = urlsplit(host_and_path)
    if literal != pattern and (parts.hostname or "").count(".") < 2:
        return "behind `*.` a host needs a domain of two labels or more"
    if parts.scheme == "http" and not (_is_loopback(parts) and _is_local_server(base_url)):
        return "http:// is for a loopback host, of a provider whose base_url is such: use https://"
    return None


@lru_cache(maxsize=CHECKED_MAX)
def endpoint_fault(url: str, patterns: Sequence[str]) -> str | None:
    """Say why an organisation's endpoint may not be used, without quoting it; None if it may."""
    if not patterns:
        return "the provider allows no endpoints of organisations (org_endpoints)"
    if why := _fault(url):
        return why
    if not any(_matches(urlsplit(url), pattern) for pattern in patterns):
        return "it matches no pattern of the provider's org_endpoints"
    return None


def _matches(url: SplitResult, pattern: str) -> bool:
    """True if scheme, host, port and path match. Patterns have no fault."""
    is_wild, path_is_open = "://*." in pattern, pattern.endswith("*")
    allowed = urlsplit(pattern.replace("://*.", "://any.", 1).removesuffix("*"))
    if url.scheme != allowed.scheme or _port(url) != _port(allowed):
        return False
    host, allowed_host = url.hostname or "", allowed.hostname or ""
    if is_wild:
        host, allowed_host = host.partition(".")[2], allowed_host.partition(".")[2]
    path, start = url.path or "/", allowed.path or "/"
    return host == allowed_host and (
        path.startswith(start) if path_is_open else path.rstrip("/") == start.rstrip("/")
    )


def _fault(url: str) -> str | None:
    """What is wrong with a URL that is to be a base URL."""
    if len(url) > URL_CHARS_MAX or not _PLAIN.fullmatch(url) or "\\" in url:
        return f"it is not one word of at most {URL_CHARS_MAX} printable ASCII characters"
    if why := url_fault(url):
        return why
    parts = urlsplit(url)
    if parts.scheme not in PORTS or "@" in url or "?" in url or "#" in url:
        return "it must be https://host/path, without a user, a password, a query or a fragment"
    host = parts.hostname or ""
    if host not in LOOPBACK and not _HOST.fullmatch(host):
        return "its host is not a name"
    if "%" in parts.path or "//" in parts.path or _STEP_UP.search(parts.path):
        return "its path has an escape, an empty part, or `..`"
    return None


def _port(url: SplitResult) -> int | None:
    return url.port or PORTS.get(url.scheme)


def _is_loopback(url: SplitResult) -> bool:
    return url.hostname in LOOPBACK


def _is_local_server(base_url: str | None) -> bool:
    """True if the provider itself is a loopback server without TLS."""
    parts = urlsplit(base_url or "")
    return parts.scheme == "http" and _is_loopback(parts)
