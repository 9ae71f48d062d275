"""Ending a pause early, from any thread."""

from __future__ import annotations

import asyncio

from worker.wakeable_sleep import WakeableSleep

LONG_S, PATIENCE_S = 3_600.0, 20.0


def test_a_pause_ends_by_itself() -> None:
    """Nobody nudged."""
    asyncio.run(WakeableSleep().pause(0.01))


def test_a_nudge_from_another_thread_ends_a_pause() -> None:
    """Whoever settles does so in a thread."""
    nudge = WakeableSleep()

    async def story() -> None:
        pause = asyncio.create_task(nudge.pause(LONG_S))
        await asyncio.sleep(0)
        await asyncio.to_thread(nudge.give)
        await asyncio.wait_for(pause, PATIENCE_S)

    asyncio.run(story())


def test_a_nudge_between_two_pauses_ends_the_next_one_and_no_other() -> None:
    """It came while the coroutine worked; it must not be lost, and counts once."""
    nudge = WakeableSleep()

    async def story() -> bool:
        await nudge.pause(0)
        nudge.give()
        nudge.give()
        await asyncio.wait_for(nudge.pause(LONG_S), PATIENCE_S)
        another = asyncio.create_task(nudge.pause(0.05))
        await asyncio.sleep(0.01)
        is_pausing = not another.done()
        await another
        return is_pausing

    assert asyncio.run(story())


def test_a_nudge_for_nobody_is_harmless() -> None:
    """Before the loop runs, and after it is closed."""
    nudge = WakeableSleep()
    nudge.give()
    asyncio.run(nudge.pause(0))
    nudge.give()
