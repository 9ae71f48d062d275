"""A client whose organisation has too many open calls: it is told, or waits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from callgate.client import Client, Handle
from callgate.domain.errors import InvalidRequest, OrganisationBusy
from callgate.domain.limits import Declaration
from tests.support.memory_client import client_over, work
from tests.support.service_world import ServiceWorld, a_request


@pytest.fixture
def world() -> ServiceWorld:
    """All services over memory."""
    return ServiceWorld()


@pytest.fixture
def busy(world: ServiceWorld) -> Client:
    """A client whose organisation has the one open call that it may have."""
    world.ledger.flow.publish("worker", Declaration(open_calls_max=1))
    client = client_over(world)
    client.submit(a_request("first"))
    return client


def test_a_busy_organisation_is_told(busy: Client) -> None:
    """Unless its submission joins a call."""
    with pytest.raises(OrganisationBusy, match="'acme' has 1 open calls and may have 1") as caught:
        busy.submit(a_request("second"))

    assert (caught.value.open_calls, caught.value.open_calls_max) == (1, 1)
    assert busy.submit(a_request("first")).collapsed


def test_submitting_waits_for_room(world: ServiceWorld, busy: Client) -> None:
    """Its links and its identity are those of the first try."""
    soon = threading.Timer(0.1, work, [world])
    soon.start()
    handle = busy.submit(a_request("second"), on_busy="wait")
    soon.join()

    assert not handle.collapsed
    work(world)
    assert handle.get(timeout=1).text == "yes"


def test_many_are_submitted_as_room_appears(world: ServiceWorld, busy: Client) -> None:
    requests = [a_request("a"), a_request("b"), a_request("a")]

    async def both() -> list[Handle]:
        submitting = asyncio.create_task(busy.asubmit_many(requests, on_busy="wait"))
        while not submitting.done():
            await asyncio.sleep(0.02)
            while world.queue.calls:
                await world.run(world.queue.calls.pop(0))
        return await submitting

    handles = asyncio.run(both())

    assert [handle.get(timeout=1).text for handle in handles] == ["yes"] * 3
    assert handles[0].task_id == handles[2].task_id


def test_waiting_for_room_ends(busy: Client) -> None:
    with pytest.raises(OrganisationBusy):
        busy.submit(a_request("second"), on_busy="wait", busy_timeout_s=0.05)
    with pytest.raises(OrganisationBusy):
        asyncio.run(busy.asubmit(a_request("second"), on_busy="wait", busy_timeout_s=0.05))


def test_an_unknown_word_for_busy_is_refused(world: ServiceWorld) -> None:
    with pytest.raises(InvalidRequest, match="raise, wait"):
        client_over(world).submit(a_request(), on_busy="panic")  # type: ignore[arg-type]
