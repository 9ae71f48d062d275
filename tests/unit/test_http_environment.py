"""Faults of the environment are named before the first request; a usable environment has none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callgate.adapters.providers.http.environment import check_environment
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.errors import ConfigurationError
from tests.support.certificates import self_signed

TRANSPORT = ("_proxy", "ssl_cert_file", "ssl_cert_dir", "sslkeylogfile")
UNSUPPORTED = "names an unsupported kind of proxy: it must start with http:// or https://"
NO_URL = "is not a proxy URL"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith(TRANSPORT):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate."""
    return self_signed(tmp_path_factory.mktemp("tls"), "localhost")


def fault() -> str:
    """The message about the environment, in one line."""
    with pytest.raises(ConfigurationError) as error:
        check_environment({"openai": ProviderEntry()})
    assert str(error.value).isprintable()
    return str(error.value)


def test_an_empty_environment_has_no_fault() -> None:
    check_environment({"openai": ProviderEntry()})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "no certificate in it can be read"),
        (b"text\n", "no certificate in it can be read"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "no certificate in it can be read",
        ),
    ],
    ids=["missing", "empty", "no PEM", "no certificate"],
)
def test_a_certificate_file_must_have_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, why: str
) -> None:
    """Without one the client cannot be made, or trusts no server."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    assert fault() == f"SSL_CERT_FILE {str(file)!r} cannot be used: {why}"


def test_a_folder_or_a_key_is_no_certificate_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path
) -> None:
    for file in (tmp_path, certificate.with_name("key.pem")):
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert fault().startswith("SSL_CERT_FILE ")


@pytest.mark.parametrize("name", ["ca.pem", "0123abcd.0"])
def test_a_certificate_folder_needs_hashed_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path, name: str
) -> None:
    """OpenSSL reads no other files in it, and ignores a missing folder."""
    folders = f"{tmp_path / 'missing'}:{tmp_path}"
    monkeypatch.setenv("SSL_CERT_DIR", folders)
    (tmp_path / name).write_text("no certificate")
    assert fault().startswith(f"SSL_CERT_DIR {folders!r} cannot be used")

    (tmp_path / name).write_bytes(certificate.read_bytes())

    if name == "0123abcd.0":
        check_environment({})
    else:
        assert "openssl rehash" in fault()


def test_a_certificate_file_comes_before_the_folder(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """With both set the folder is ignored, as in the transport."""
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    assert fault().startswith("SSL_CERT_DIR ")

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    check_environment({})


def test_a_key_log_must_be_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python opens it with every TLS context; aiohttp makes one when it is imported."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/nonexistent/keys")

    assert (
        fault() == "SSLKEYLOGFILE '/nonexistent/keys' cannot be written (No such file or directory)"
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("socks://127.0.0.1:9/", UNSUPPORTED),
        ("socks4://bob:hunter2@h:1", UNSUPPORTED),
        ("socks5://bob:hunter2@h:1", UNSUPPORTED),
        ("SOCKS5h://bob:hunter2@h:1", UNSUPPORTED),
        ("ftp://h:1", UNSUPPORTED),
        (" http://h:1", UNSUPPORTED),
        ("hunter2://h", UNSUPPORTED),
        ("http://", NO_URL),
        ("http:///hunter2", NO_URL),
        ("http://:3128", NO_URL),
        ("http://h:port", NO_URL),
        ("http://h:99999", NO_URL),
        ("http://h:0", NO_URL),
        ("http://[::1", NO_URL),
        ("http://h :1", NO_URL),
        ("http://xn--a:1", NO_URL),
        ("http://bob:hun#ter2@h:1", NO_URL),
        ("http://bob:80#hunter2@h:1", NO_URL),
        ("http://bob:80/hunter2@h:1", NO_URL),
        ("http://bob:80?hunter2@h:1", NO_URL),
        ("http://bob%3Ahunter2:x@h:1", NO_URL),
        ("http://bob:hunter2%C4%9B@h:1", NO_URL),
        ("bob:hun/ter2@h:1", NO_URL),
    ],
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_an_unusable_proxy_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, said: str
) -> None:
    """By its variable. Its URL is not quoted, because any part of it may be a password."""
    monkeypatch.setenv(variable, url)

    message = fault()

    assert message.startswith(f"{variable} {said}")
    for secret in ("hun", "ter2", "bob"):
        assert secret not in message


@pytest.mark.parametrize(
    "url",
    [
        "http://proxy.corp:3128",
        "HTTP://proxy:3128/",
        "https://proxy",
        "proxy:3128",
        "10.0.0.1",
        "http://[::1]:3128",
        "http://bob:p%40ss%23word@proxy:3128",
        "http://bob:p@ss@proxy:3128",
        "http://bob:%C3%A9@proxy:3128",
        "http://bob@proxy:3128",
        "",
    ],
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_usable_proxy_has_no_fault(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    monkeypatch.setenv(variable, url)

    check_environment({"openai": ProviderEntry()})


def test_an_unused_proxy_has_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Desktops set a proxy of each kind, and NO_PROXY can switch all of them off."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    assert fault() == f"ALL_PROXY {UNSUPPORTED}"

    monkeypatch.setenv("NO_PROXY", "localhost, *")
    check_environment({})
    monkeypatch.delenv("NO_PROXY")
    for variable in ("HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:8118")
    check_environment({})

    # The transport still makes a client.
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080")
    assert fault().startswith("ALL_PROXY cannot be used")


@pytest.mark.parametrize("hosts", ["xn--", "corp, *xn--a"])
def test_a_no_proxy_pattern_that_breaks_the_client_is_named(
    monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    """The transport ignores other malformed patterns."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", hosts)

    assert fault().startswith("NO_PROXY cannot be used")


def test_unusual_no_proxy_patterns_have_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = "localhost,127.0.0.1,::1,[::1],10.0.0.0/8,10.0.0.0/33,.corp,*.corp,h:1,http://h,fe80::1%eth0,a b,,[::1,*."
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", hosts)

    check_environment({})


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/ca.pem")
    monkeypatch.setenv("HTTP_PROXY", "socks://h")
    monkeypatch.setenv("HTTPS_PROXY", "http://h:port")

    message = fault()

    for name in ("SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY"):
        assert name in message


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "nonsense",
        "h:8080/v1",
        "ftp://h/v1",
        "http:///v1",
        "http://:80/v1",
        "http://h:0/v1",
        "http://h/v1 ",
        " http://h/v1",
        "http://h/\nv1",
        "http://xn--a/v1",
        "http://bob:hunter2@h/v1",
        "http://h/v1?key=hunter2",
        "http://h/v1#hunter2",
    ],
)
def test_an_unusable_base_url_is_named(base_url: str) -> None:
    """By its catalogue key. The URL is not quoted, because it may hold a password."""
    with pytest.raises(ConfigurationError) as error:
        check_environment({"near": ProviderEntry(base_url=base_url)})

    message = str(error.value)
    assert message.startswith("the catalogue's providers.near.base_url cannot be called: ")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "base_url",
    ["http://127.0.0.1:8080/v1", "https://api.example.com", "HTTPS://h/a/b/", "http://[::1]:1/v1"],
)
def test_a_usable_base_url_has_no_fault(base_url: str) -> None:
    check_environment({"near": ProviderEntry(base_url=base_url)})
