"""Which endpoints an operator's patterns allow, and which they never do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from callgate.domain.access import endpoint_fault, pattern_fault
from callgate.domain.catalogue import ProviderEntry

AZURE = ("https://*.openai.azure.com/*",)


@pytest.mark.parametrize(
    ("url", "patterns"),
    [
        ("https://acme.openai.azure.com/openai/v1", AZURE),
        ("https://acme.openai.azure.com/openai/v1/", AZURE),
        ("https://ACME.OpenAI.azure.com:443/openai", AZURE),
        ("https://acme.openai.azure.com", AZURE),
        ("https://eu.example.com/v1", ("https://us.example.com/v1", "https://eu.example.com/v1")),
        ("https://eu.example.com/v1/", ("https://eu.example.com/v1",)),
        ("https://eu.example.com:8443/v1", ("https://eu.example.com:8443/*",)),
    ],
)
def test_an_endpoint_that_matches_may_be_used(url: str, patterns: tuple[str, ...]) -> None:
    assert all(pattern_fault(pattern, None) is None for pattern in patterns)
    assert endpoint_fault(url, patterns) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "acme.openai.azure.com",
        "http://acme.openai.azure.com/v1",
        "ftp://acme.openai.azure.com/v1",
        "https://openai.azure.com/v1",
        "https://.openai.azure.com/v1",
        "https://a.b.openai.azure.com/v1",
        "https://acme.openai.azure.com.evil.example/v1",
        "https://evil.example/x.openai.azure.com/v1",
        "https://evil.example/?x.openai.azure.com/v1",
        "https://evil.example#x.openai.azure.com/v1",
        "https://evil.example\\x.openai.azure.com/v1",
        "https://evil.example%2f.openai.azure.com/v1",
        "https://evil.example;.openai.azure.com/v1",
        "https://user:secret@acme.openai.azure.com/v1",
        "https://acme.openai.azure.com@evil.example/v1",
        "https://acme.openai.azure.com:8443/v1",
        "https://acme.openai.azure.com:port/v1",
        "https://acme.openai.azure.com/v1?key=secret",
        "https://acme.openai.azure.com/../admin",
        "https://acme.openai.azure.com/%2e%2e/admin",
        "https://acme.openai.azure.com//evil.example/v1",
        "https://acme.openai.azure.com/v1 x",
        "https://acme.openai.azure.com/v1\n",
        "https://\u0430cme.openai.azure.com/v1",
        "https://127.0.0.1/v1",
        "https://[::1]/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://169.254.169.254/latest",
        "https://acme.openai.azure.com/" + "x" * 3_000,
    ],
)
def test_no_other_endpoint_is_used(url: str) -> None:
    why = endpoint_fault(url, AZURE)

    assert why
    assert "secret" not in why
    assert "evil" not in why


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab.-/:@?#%\\*[]", max_size=12), st.sampled_from(["", "a."]))
def test_whatever_an_organisation_writes_its_host_is_the_operators(text: str, start: str) -> None:
    """Of all texts that are accepted, the client's own parser finds a host under the operator's domain."""
    import httpx2

    for url in (f"https://{start}{text}.openai.azure.com/v1", f"https://{start}{text}"):
        if endpoint_fault(url, AZURE) is None:
            assert httpx2.URL(url).host.endswith(".openai.azure.com")
            assert httpx2.URL(url).userinfo == b""


def test_no_pattern_allows_none() -> None:
    assert "allows no endpoints" in (endpoint_fault("https://acme.openai.azure.com/v1", ()) or "")


@pytest.mark.parametrize(
    ("pattern", "base_url"),
    [
        ("https://*", None),
        ("https://*/*", None),
        ("https://*.com/*", None),
        ("https://*.*.example.com/*", None),
        ("https://a*.example.com/*", None),
        ("https://example.*/*", None),
        ("https://*.example.com*", None),
        ("*://api.example.com/*", None),
        ("http://api.example.com/*", None),
        ("http://127.0.0.1:9/*", "https://api.example.com/v1"),
        ("http://127.0.0.1:9/*", None),
        ("http://10.0.0.1/*", "http://127.0.0.1:8080/v1"),
        ("https://user:secret@example.com/*", None),
        ("https://example.com/v1?x=secret", None),
        ("", None),
    ],
)
def test_a_pattern_that_says_too_much_is_refused(pattern: str, base_url: str | None) -> None:
    """When the catalogue is read, and without quoting it."""
    with pytest.raises(ValidationError) as raised:
        ProviderEntry(base_url=base_url, org_endpoints=(pattern,))

    (error,) = raised.value.errors()
    assert "org_endpoints" in error["msg"]
    assert "secret" not in error["msg"]


def test_plain_http_is_for_loopback_beside_loopback() -> None:
    """A local server whose own base URL has no TLS."""
    entry = ProviderEntry(
        base_url="http://127.0.0.1:8080/v1", org_endpoints=("http://127.0.0.1:9/*",)
    )

    assert endpoint_fault("http://127.0.0.1:9/v1", entry.org_endpoints) is None
    assert endpoint_fault("http://127.0.0.1:10/v1", entry.org_endpoints)
    assert endpoint_fault("https://127.0.0.1:9/v1", entry.org_endpoints)
