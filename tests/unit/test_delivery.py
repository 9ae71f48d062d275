"""When a link is tried again, what counts against it, and what is said of it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from callgate.adapters.memory import ledger as memory_ledger
from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import TRIES_MAX, Delivery, Published, link_outcome_of
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import EndReason
from callgate.services.delivery import LOG_AGAIN_AFTER_S
from tests.support.ledger_under_test import a_submission, open_memory
from tests.support.service_world import ServiceWorld

LINK = '{"link": null}'
WHY = "refused by the broker: ResponseError"


def a_delivery(tries: int = 0) -> Delivery:
    """A link that was tried so often."""
    return Delivery(uuid4(), CallKey(uuid4(), 1), CallState.DEAD, LINK, "acme", tries)


@pytest.mark.parametrize(
    ("tries", "again_s"), [(0, 10), (1, 20), (2, 40), (8, 2_560), (9, 3_600), (18, 3_600)]
)
def test_a_refused_link_waits_twice_as_long_each_time(tries: int, again_s: float) -> None:
    """Up to an hour."""
    link = a_delivery(tries)

    outcome = link_outcome_of(link, Published(link.submission_id, WHY))

    assert (outcome.why, outcome.again_s) == (WHY, again_s)


def test_a_link_is_given_up_in_the_end() -> None:
    """After twenty tries, half a day; one that can never be published at once."""
    last, broken = a_delivery(TRIES_MAX - 1), a_delivery()
    waits = [min(3_600, 10 * 2**n) for n in range(TRIES_MAX - 1)]

    outcomes = [
        link_outcome_of(last, Published(last.submission_id, WHY)),
        link_outcome_of(broken, Published(broken.submission_id, "broken: KeyError", is_final=True)),
    ]

    assert [o.again_s for o in outcomes] == [None, None]
    assert [o.why for o in outcomes] == [WHY, "broken: KeyError"]
    assert 10 * 3_600 < sum(waits) < 14 * 3_600


def test_a_published_link_is_delivered() -> None:
    """Whatever happened before."""
    link = a_delivery(TRIES_MAX)

    outcome = link_outcome_of(link, Published(link.submission_id))

    assert (outcome.submission_id, outcome.why, outcome.again_s) == (link.submission_id, None, None)


# The service.


def ended(world: ServiceWorld, count: int = 1, org_id: str = "acme") -> list[CallKey]:
    """Calls that were cancelled, each with a link."""
    new = [a_submission(f"{org_id} {n}", org_id=org_id, link=LINK) for n in range(count)]
    keys = [answer.key for answer in world.ledger.submit(new)]
    return world.ledger.end(keys, code=EndReason.CANCELLED, message="by a test")


def test_a_refused_link_is_tried_until_it_is_given_up() -> None:
    """Twenty times, and then its call is at rest, with the reason."""
    world = ServiceWorld()
    (key,) = ended(world)
    world.queue.refused[LINK] = Published(uuid4(), WHY)

    tries = 0
    for _ in range(200):
        tries += world.delivery.run()
        world.clock.elapsed_s += 600

    (failure,) = world.ledger.link_failures(key, limit=10)
    assert (tries, failure.tries, failure.why) == (TRIES_MAX, TRIES_MAX, WHY)
    assert failure.given_up_at is not None
    assert world.ledger.tables.undelivered == {}


def test_an_outage_counts_for_nobody() -> None:
    """However long it takes: the link is as it was, and is told when the broker is back."""
    world = ServiceWorld()
    (key,) = ended(world)
    world.queue.is_away = True
    for _ in range(50):
        with pytest.raises(BrokerUnavailable):
            world.delivery.run()
        world.clock.elapsed_s += 600
    world.queue.is_away = False

    assert world.delivery.run() == 1
    assert [(link.key, link.tries) for link in world.queue.links] == [(key, 0)]


def test_what_is_behind_an_outage_is_not_said_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker took two, and then no more."""
    world = ServiceWorld()
    ended(world, 5)

    def two(links: list[Delivery]) -> list[Published]:
        return [Published(link.submission_id) for link in links[:2]]

    monkeypatch.setattr(world.queue, "publish_links", two)
    world.delivery.run()

    assert len(world.ledger.tables.undelivered) == 3


def test_telling_at_once_is_never_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was settled is settled; the links are delivered later."""
    world = ServiceWorld()
    keys = ended(world)

    def away(**_: object) -> None:
        raise LedgerUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(world.ledger, "links", away)
        world.delivery.deliver(keys)
    world.queue.is_away = True
    world.delivery.deliver(keys)
    world.delivery.deliver([])

    assert world.queue.links == []
    assert list(world.ledger.tables.undelivered) == keys


def test_organisations_take_turns_from_batch_to_batch() -> None:
    """One with many links is served between others, and nobody twice before all were."""
    world = ServiceWorld()
    for org_id in "cab":
        ended(world, 120, org_id)
    ended(world, 1, "z")

    turns = []
    while world.delivery.run():
        turns.append([link.org_id for link in world.queue.links])
        world.queue.links = []

    assert turns[0] == ["a"] * 50 + ["b"] * 50 + ["c"] * 50 + ["z"]
    assert sum(map(len, turns)) == 361
    assert len(turns) < 6


def test_a_cause_is_logged_once_a_minute_with_a_count() -> None:
    """Per organisation and cause; not once per link."""
    world = ServiceWorld()
    world.queue.refused[LINK] = Published(uuid4(), WHY)
    for org_id in ("acme", "other"):
        ended(world, 120, org_id)

    with capture_logs() as logs:
        while world.delivery.run():
            pass
        early = [(log["event"], log["org_id"], log["reason"], log["count"]) for log in logs]
        logs.clear()
        world.clock.elapsed_s += LOG_AGAIN_AFTER_S + 1
        world.delivery.run()

    assert early == [
        ("links.not_delivered", "acme", WHY, 50),
        ("links.not_delivered", "other", WHY, 50),
    ]
    assert {(log["org_id"], log["count"]) for log in logs} == {("acme", 120), ("other", 120)}


def test_one_call_takes_so_many_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next is refused as that row's own; one without a link is not. (Of Postgres in tests/security.)"""
    monkeypatch.setattr(memory_ledger, "LINKS_PER_CALL_MAX", 3)
    ledger = open_memory()

    answers = ledger.submit(*(a_submission(link=LINK) for _ in range(4)), a_submission())

    joined = SubmitOutcome.JOINED
    assert [a.outcome for a in answers] == [
        SubmitOutcome.CREATED,
        joined,
        joined,
        SubmitOutcome.UNSTORABLE,
        joined,
    ]
