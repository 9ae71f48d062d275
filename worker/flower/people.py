"""Who uses the pages, and what they may do: pure rules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from callgate.domain.errors import ConfigurationError

ROLES = "CALLGATE_WORKER__FLOWER_ROLES"
NOBODY = "without a login"
"""How pages name the user of a Flower without a login."""
NO_LOGIN = (
    "nobody has logged in: set CALLGATE_WORKER__FLOWER_BASIC_AUTH or CALLGATE_WORKER__FLOWER_AUTH"
)
READ_ONLY = "read-only: set CALLGATE_WORKER__FLOWER_READ_ONLY=false"


class Role(StrEnum):
    """What a user may do. A user may have several roles; each of them may read."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    BODY_READER = "body_reader"


@dataclass(frozen=True, slots=True)
class Person:
    """The user of a request."""

    name: str
    """As Flower knows it: the user of the password, or the email. Empty: nobody has to log in."""
    roles: frozenset[Role]

    @property
    def shown(self) -> str:
        """How pages call the user."""
        return self.name or NOBODY


@dataclass(frozen=True, slots=True)
class People:
    """The roles of all users, and whether anything may be changed at all."""

    roles: dict[str, frozenset[Role]]
    default: frozenset[Role]
    is_read_only: bool

    def person(self, name: str) -> Person:
        """Return a user with its roles. Nobody in particular is a viewer."""
        if not name:
            return Person("", frozenset({Role.VIEWER}))
        return Person(name, self.roles.get(name, self.default))

    def refusal(self, person: Person, needed: Role | str) -> str | None:
        """Say why a user may not do what needs a role; None if it may."""
        role = Role(needed)
        if role is not Role.VIEWER:
            if not person.name:
                return NO_LOGIN
            if self.is_read_only:
                return READ_ONLY
        if role in person.roles or (role is Role.VIEWER and person.roles):
            return None
        return f"{person.shown} has no role {role}: {ROLES} gives roles to users"


def read_roles(text: str) -> dict[str, frozenset[Role]]:
    """
    Read `ann=operator+body_reader, bob=viewer`.

    Raises:
        ConfigurationError: It cannot be read, or names a user twice.
    """
    found: dict[str, frozenset[Role]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, names = part.rpartition("=")
        roles = [role.strip() for role in names.split("+")]
        wrong = next((role for role in roles if role not in [*Role]), None)
        if not name or wrong is not None or name.strip() in found:
            raise ConfigurationError(
                f"{ROLES}: {part!r} is not one user with roles of {', '.join(Role)}: write"
                " ann=operator+body_reader, bob=viewer"
            )
        found[name.strip()] = frozenset(map(Role, roles))
    return found


def read_passwords(text: str) -> list[str]:
    """
    Read one `user:password`, or a JSON list of several.

    Raises:
        ConfigurationError: It has another form. The message quotes nothing.
    """
    try:
        found = json.loads(text) if text.startswith("[") else [text]
    except ValueError:
        found = [None]
    if not all(isinstance(one, str) and one.partition(":")[0] and ":" in one for one in found):
        raise ConfigurationError(
            "CALLGATE_WORKER__FLOWER_BASIC_AUTH must be user:password, or a JSON list of such"
        )
    return list(found)
