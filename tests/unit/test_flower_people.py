"""Who may do what in Flower's pages: the rules."""

from __future__ import annotations

from itertools import product

import pytest
from pydantic import SecretStr

from callgate.domain.errors import ConfigurationError
from config.settings import WorkerOptions
from worker.flower.dashboard import check_guarded, people_of
from worker.flower.once import USED_MAX, OnceTokens
from worker.flower.page import reason_fault
from worker.flower.people import (
    NO_LOGIN,
    READ_ONLY,
    People,
    Person,
    Role,
    read_passwords,
    read_roles,
)

OPERATORS = {"ann": frozenset({Role.OPERATOR}), "nil": frozenset[Role]()}
ROLE_LISTS = (
    frozenset[Role](),
    *(frozenset({role}) for role in Role),
    frozenset({Role.OPERATOR, Role.BODY_READER}),
)


def people(*, is_read_only: bool = False) -> People:
    """Ann is an operator, Nil has no role, others are viewers."""
    return People(OPERATORS, frozenset({Role.VIEWER}), is_read_only)


@pytest.mark.parametrize(("roles", "needed"), [*product(ROLE_LISTS, Role)])
def test_a_role_lets_do_what_it_says_and_every_role_lets_read(
    roles: frozenset[Role], needed: Role
) -> None:
    why = people().refusal(Person("x", roles), needed)

    assert (why is None) is (needed in roles or (needed is Role.VIEWER and bool(roles)))


@pytest.mark.parametrize("needed", [Role.OPERATOR, Role.BODY_READER])
def test_nobody_in_particular_only_reads(needed: Role) -> None:
    """Whatever the default role is, and if a role was given to a user without a name."""
    every = frozenset(Role)
    open_to_all = People({"": every}, every, is_read_only=False)
    nobody = open_to_all.person("")

    assert open_to_all.refusal(nobody, Role.VIEWER) is None
    assert open_to_all.refusal(Person("", every), needed) == NO_LOGIN


def test_read_only_is_stronger_than_a_role() -> None:
    closed = people(is_read_only=True)

    assert closed.refusal(closed.person("ann"), Role.OPERATOR) == READ_ONLY
    assert closed.refusal(closed.person("ann"), Role.VIEWER) is None


def test_a_user_without_a_role_reads_nothing() -> None:
    some = people()

    assert "CALLGATE_WORKER__FLOWER_ROLES" in str(some.refusal(some.person("nil"), Role.VIEWER))
    assert some.refusal(some.person("somebody"), Role.VIEWER) is None
    assert some.refusal(some.person("Ann"), Role.OPERATOR) is not None


def test_roles_are_read_from_one_text() -> None:
    text = " ann@x.example=operator + body_reader, bob=viewer,,"

    assert read_roles(text) == {
        "ann@x.example": frozenset({Role.OPERATOR, Role.BODY_READER}),
        "bob": frozenset({Role.VIEWER}),
    }
    assert read_roles("") == {}


@pytest.mark.parametrize(
    "text", ["ann", "ann=", "=operator", "ann=admin", "ann=operator,ann=viewer", "ann=operator+"]
)
def test_roles_that_cannot_be_read_are_refused(text: str) -> None:
    """At start: a misspelt role must not become the default one."""
    with pytest.raises(ConfigurationError, match="FLOWER_ROLES"):
        people_of(WorkerOptions(flower_roles=text))


@pytest.mark.parametrize(
    ("text", "passwords"),
    [
        ("ann:a:b,c", ["ann:a:b,c"]),
        ('["ann:x", "bob:y,z"]', ["ann:x", "bob:y,z"]),
        ("ann:", ["ann:"]),
    ],
)
def test_passwords_are_one_or_a_list(text: str, passwords: list[str]) -> None:
    assert read_passwords(text) == passwords


@pytest.mark.parametrize("text", ["ann", ":x", "[1]", '["ann"]', "[", '[["a:b"]]'])
def test_a_password_without_a_user_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_guarded(WorkerOptions(flower_basic_auth=SecretStr(text)))

    assert f"{text!r}" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"flower_read_only": False}, "FLOWER_READ_ONLY"),
        ({"flower_address": "0.0.0.0"}, "FLOWER_ADDRESS"),  # noqa: S104
        ({"flower_auth": ".*@x.example"}, "FLOWER_AUTH_PROVIDER"),
        ({"flower_auth": ".*@*.example", "flower_auth_provider": "google"}, "FLOWER_AUTH"),
    ],
)
def test_what_nobody_could_answer_for_does_not_start(
    settings: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        check_guarded(WorkerOptions.model_validate(settings))


def test_an_oauth_login_is_a_login() -> None:
    """Beyond loopback, and for changes."""
    options = {
        "flower_auth": "ann@x.example|bob@x.example",
        "flower_auth_provider": "github",
        "flower_address": "0.0.0.0",  # noqa: S104
        "flower_read_only": False,
    }

    check_guarded(WorkerOptions.model_validate(options))


def test_a_token_counts_once() -> None:
    """And old ones are forgotten, so that memory stays bounded."""
    tokens = OnceTokens()
    token = tokens.new()

    assert [tokens.use(token), tokens.use(token)] == [True, False]
    assert all(tokens.use(tokens.new()) for _ in range(USED_MAX))
    assert len(tokens._used) == USED_MAX


@pytest.mark.parametrize("reason", ["", "x" * 1_001, "turned \u202e", "nul \0"])
def test_what_is_no_reason(reason: str) -> None:
    assert "Nothing was changed" in str(reason_fault(reason))


@pytest.mark.parametrize("reason", ["x", "größer & <b>", "two\nlines\tand a tab", "x" * 1_000])
def test_what_is_a_reason(reason: str) -> None:
    assert reason_fault(reason) is None
