"""Submitting is one method: all gates first, then one statement, then what was created is published."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from callgate.domain.call_order import Priority
from callgate.domain.errors import IdempotencyMismatch, UnknownProvider
from callgate.domain.reports import CallFilter
from callgate.services.submit import SubmissionOptions
from tests.support.service_world import ServiceWorld, a_request


@pytest.fixture
def world() -> ServiceWorld:
    """All services over memory."""
    return ServiceWorld()


def test_only_what_was_created_is_published(world: ServiceWorld) -> None:
    """A duplicate joins a call whose message is out already."""
    first, again, other = world.submits.submit([a_request("a"), a_request("a"), a_request("b")])

    assert first.key == again.key
    assert world.queue.calls == [first.key, other.key]


def test_one_refused_request_stores_none(world: ServiceWorld) -> None:
    """Gates are asked before the ledger is."""
    with pytest.raises(UnknownProvider):
        world.submits.submit([a_request("a"), a_request("b", provider="nobody")])

    assert world.ledger.calls(CallFilter(), limit=10) == []
    assert world.queue.calls == []


def test_neighbours_of_a_refused_key_are_published(world: ServiceWorld) -> None:
    """They are stored: without a message they would wait for a sweep."""
    world.submits.submit([a_request("a")], idempotency_key="order-7")
    world.queue.calls.clear()
    good = world.submits.prepare(a_request("b"))
    bad = world.submits.prepare(a_request("c"), idempotency_key="order-7")

    with pytest.raises(IdempotencyMismatch, match="order-7"):
        world.submits.accept([good, bad])

    assert [key.call_id for key in world.queue.calls] == [good.call_id]


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("start_before", [None, datetime(2199, 1, 1, tzinfo=UTC)], ids=str)
def test_class_and_deadline_are_not_part_of_the_identity(
    world: ServiceWorld, priority: Priority, start_before: datetime | None
) -> None:
    """They are options of a submission, so an answer that exists is not paid again."""
    plain = world.submits.prepare(a_request("a"))
    options = SubmissionOptions(priority, start_before)
    hurried = world.submits.prepare(a_request("a"), options=options)

    assert (hurried.input_hash, hurried.call_id) == (plain.input_hash, plain.call_id)
    assert hurried.request == plain.request
