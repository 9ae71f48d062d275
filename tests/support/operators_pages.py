"""Flower with users of several roles, over a ledger that a test fills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from callgate.adapters.postgres.session import PostgresSession
from tests.support.deployment import Deployment
from tests.support.flower import FlowerUnderTest, a_flower
from tests.support.ledger_under_test import LedgerUnderTest, open_postgres
from tests.support.visitor import Visitor

PASSWORDS = {name: f"{name}:the right one" for name in ("ann", "ben", "vera", "rita")}
ROLES = "ann=operator, ben=operator, vera=viewer, rita=body_reader"


@dataclass(frozen=True)
class PagesUnderTest:
    """Pages, and the ledger that they show."""

    flower: FlowerUnderTest
    ledger: LedgerUnderTest

    @property
    def port(self) -> int:
        """Where they are, on this machine."""
        return self.flower.port

    def visitor(self, name: str) -> Visitor:
        """A user: ann and ben are operators, vera is a viewer, rita reads bodies."""
        return Visitor(self.port, PASSWORDS[name])


@contextmanager
def the_pages(deployment: Deployment) -> Iterator[PagesUnderTest]:
    """Run Flower, with a ledger in which acme has a budget of 1,000 nano-USD per day."""
    secret = json.dumps(list(PASSWORDS.values()))
    with (
        closing(PostgresSession(deployment.environ["CALLGATE_DATABASE_URL"])) as session,
        a_flower(
            deployment,
            CALLGATE_WORKER__FLOWER_BASIC_AUTH=secret,
            CALLGATE_WORKER__FLOWER_ROLES=ROLES,
            CALLGATE_WORKER__FLOWER_READ_ONLY="false",
        ) as flower,
    ):
        yield PagesUnderTest(flower, open_postgres(session))
