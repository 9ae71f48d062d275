"""`CALLGATE_EMBEDDED=1`: the URLs and the catalogue of a running `callgate up`, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from sqlalchemy import URL, make_url

from callgate.adapters.postgres.session import PostgresSession
from callgate.cli import run
from callgate.domain.errors import ConfigurationError
from callgate.settings import ClientSettings, load_settings


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder as `callgate up` leaves it while it runs."""
    monkeypatch.setenv("CALLGATE_EMBEDDED", "1")
    monkeypatch.setenv("CALLGATE_WORKER__DATA_DIR", str(tmp_path))
    (tmp_path / "env").write_text(
        "export CALLGATE_DATABASE_URL='postgresql://a&b@h/n'\n"
        "export CALLGATE_BROKER_URL=redis://h\nexport CALLGATE_POLL_MAX_S=9\n"
        "export CALLGATE_CATALOGUE=/etc/callgate/catalogue.toml\n"
    )
    return tmp_path


def test_what_is_shared_comes_from_the_file(data_dir: Path) -> None:
    """Quoted as a shell reads them; no other setting is taken from there."""
    settings = load_settings(ClientSettings)

    assert settings.database_url.get_secret_value() == "postgresql://a&b@h/n"
    assert settings.broker_url.get_secret_value() == "redis://h"
    assert settings.catalogue == Path("/etc/callgate/catalogue.toml")
    assert settings.poll_max_s == 0.25


def test_a_url_that_is_set_wins(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is nearer than a file."""
    monkeypatch.setenv("CALLGATE_BROKER_URL", "redis://other")

    assert load_settings(ClientSettings).broker_url.get_secret_value() == "redis://other"


def test_without_a_running_up_it_is_an_error(data_dir: Path) -> None:
    """The message says what is missing and where it was looked for."""
    (data_dir / "env").unlink()

    with pytest.raises(ConfigurationError, match=r"CALLGATE_EMBEDDED: no `callgate up` runs"):
        load_settings(ClientSettings)


def test_a_missing_url_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten variable must not start a second ledger: it is an error that names both ways."""
    with pytest.raises(ConfigurationError, match=r"CALLGATE_DATABASE_URL: not set .*`callgate up`"):
        load_settings(ClientSettings)
    monkeypatch.setenv("CALLGATE_EMBEDDED", "maybe")
    with pytest.raises(ConfigurationError, match="CALLGATE_EMBEDDED: must be 1 or 0"):
        load_settings(ClientSettings)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_database_url_is_taken_as_hosters_hand_it_out(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """And as SQLAlchemy wants it; several hosts and parameters are libpq's."""
    url = f"{scheme}://a:b@h:1,i:2/n?target_session_attrs=any&sslmode=require"
    monkeypatch.setenv("CALLGATE_DATABASE_URL", url)
    monkeypatch.setenv("CALLGATE_BROKER_URL", "redis://h")

    assert load_settings(ClientSettings).database_url.get_secret_value() == url


@pytest.mark.parametrize("port", ["canary", "canary/more@127.0.0.1:6379"])
def test_a_port_that_is_none_is_not_quoted(port: str) -> None:
    """It may be the first part of a password with a slash in it."""
    good = {"database_url": "postgresql+psycopg2://u@h/n", "broker_url": "redis://h"}
    for name in ("broker_url", "cache_url"):
        with pytest.raises(
            ConfigurationError, match=r"port is no number|/ is written %2F"
        ) as refused:
            load_settings(ClientSettings, **{**good, name: f"redis://u:{port}/0"})
        assert "canary" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="its port is no number") as refused:
        PostgresSession("postgresql+psycopg2://u:p@h:canary/n")
    assert "canary" not in f"{refused.value} {refused.value.__cause__}"


LOGINS = [f"ca{c}nary" for c in "@/:?#%[]"] + [f"ca@na{c}ry" for c in "@/:?#%["]
LOGINS += ["ca?nary=n@ry/x", "ca/nary?ca=y@1", "5432/1@nary", "5432?nary=b@nary", "ca\u2100ry", "@"]
"""Passwords that are not escaped; what follows a special character would be taken for a host, a port or an option."""


@pytest.mark.parametrize("password", LOGINS)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "BROKER_URL", "CACHE_URL"])
def test_no_part_of_a_password_is_printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    password: str,
) -> None:
    """It is read whole, as a person would, or refused in one line that says how to write it."""
    monkeypatch.setenv("CALLGATE_DATABASE_URL", "postgresql://u@h/n")
    monkeypatch.setenv("CALLGATE_BROKER_URL", "redis://h")
    scheme, base = ("postgresql", "n") if variable == "DATABASE_URL" else ("redis", "0")
    monkeypatch.setenv(f"CALLGATE_{variable}", f"{scheme}://user:{password}@host.invalid/{base}")

    try:
        url = getattr(load_settings(ClientSettings), variable.lower()).get_secret_value()
    except ConfigurationError as exc:
        told = str(exc)
    else:
        read = make_url(url) if variable == "DATABASE_URL" else urlsplit(url)
        host = read.host if isinstance(read, URL) else read.hostname
        assert (read.password, host) == (password, "host.invalid")
        return
    assert told.startswith(f"CALLGATE_{variable}: ")
    # Not "ca" alone: "cannot" begins so.
    assert not re.search(r"ca\b|nary|5432|\u2100", told)
    needed = {c: quote(c, safe="") for c in "@/?#" if c in password}
    assert all(f"{c} is written {escape}" in told for c, escape in needed.items())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40%2F%3F%23%3A%25@h:5432/n?sslmode=require",
        "postgresql://u:p@h/n?application_name=a@b",
        "postgresql://u@h/n?options=-csearch_path%3Da",
        "postgresql:///n?host=/var/run/postgresql&user=u",
    ],
)
def test_a_url_that_is_written_well_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Escapes, and an @ in an option."""
    monkeypatch.setenv("CALLGATE_DATABASE_URL", url)
    monkeypatch.setenv(
        "CALLGATE_BROKER_URL", "rediss://u:p%40%2F%3F%23%3A%25@h:1/2?ssl_ca_certs=/a@b"
    )

    assert load_settings(ClientSettings)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BROKER_URL", "foo://u:canary@h", "must begin with redis:// or rediss://"),
        ("BROKER_URL", "sentinel://:canary@h:1/0", "must begin with redis://"),
        ("BROKER_URL", "redis://h/0?password=canary", "after a ? it takes ssl_ca_certs"),
        ("BROKER_URL", "rediss://h/0?canary=1", "after a ? it takes ssl_ca_certs"),
        ("BROKER_URL", "redis://h/0?ssl_ca_certs=/canary", "with rediss:// only"),
        ("BROKER_URL", "rediss://h/0?ssl_cert_reqs=canary", "ssl_cert_reqs is one of required"),
        ("BROKER_URL", "redis://h/0;redis://:canary@i/0", "another number of a database"),
        ("BROKER_URL", "redis://u:ca nary@h/0", "white space"),
        ("BROKER_URL", "redis://u:canary#@h/0", "# is written %23"),
        ("BROKER_URL", "", "not set"),
        ("CACHE_URL", "foo://u:canary@h", "must begin with redis://"),
        ("DATABASE_URL", "mysql://u:canary@h/n", "must begin with postgresql://"),
        ("DATABASE_URL", "postgresql://u:canary@h/n?sslmod=x", 'option "sslmod"'),
        ("DATABASE_URL", "postgresql://u:pw@h:canary/n", "its port is no number"),
        ("DATABASE_URL", "postgresql://u:canary @h/n", "white space"),
        ("DATABASE_URL", "", "not set"),
        ("WORKER", "canary", "no such setting"),
        ("WORKER__CREDENTIALS", "canary", "no such setting"),
        (
            "WORKER__PROCESS_LEASE_S__X",
            "canary",
            "no such setting; did you mean CALLGATE_WORKER__PROCESS_LEASE_S?",
        ),
        ("WORKER__DEFAULT_DAILY_USD", "1e300", "less than or equal to"),
        ("LEDGER_TIMEOUT_S", "0.0001", "greater than or equal to 0.1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    says: str,
) -> None:
    """And quotes none of it: it may hold a password."""
    monkeypatch.setenv("CALLGATE_DATABASE_URL", "postgresql://u@h/n")
    monkeypatch.setenv("CALLGATE_BROKER_URL", "redis://h")
    monkeypatch.setenv(f"CALLGATE_{variable}", value)

    assert run(["worker"]) == 2

    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: configuration_error: ")
    assert f"CALLGATE_{variable}" in err
    assert says in err
    assert "canary" not in err


@pytest.mark.parametrize(
    ("operator", "read"), [("ann@example.org", "ann@example.org"), ("", None), (None, None)]
)
def test_an_operator_has_a_name_or_none(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, operator: str | None, read: str | None
) -> None:
    """What is empty is not set; then the system's user is kept."""
    if operator is not None:
        monkeypatch.setenv("CALLGATE_OPERATOR", operator)

    assert load_settings(ClientSettings).operator == read


@pytest.mark.parametrize("operator", [" ", "\t\n", "x" * 201])
def test_a_name_that_is_none_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    """Blank in the action log would be nobody."""
    monkeypatch.setenv("CALLGATE_OPERATOR", operator)

    with pytest.raises(ConfigurationError, match="CALLGATE_OPERATOR: "):
        load_settings(ClientSettings)
