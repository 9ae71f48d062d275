"""A sleep that other threads end early."""

from __future__ import annotations

import asyncio

from worker.wakeable_sleep import WakeableSleep

LONG_S, TIMEOUT_S = 3_600.0, 20.0


def test_a_sleep_ends_by_itself() -> None:
    asyncio.run(WakeableSleep().sleep(0.01))


def test_a_wake_from_another_thread_ends_a_sleep() -> None:
    """Settlements, which free headroom, run in threads."""
    sleeper = WakeableSleep()

    async def story() -> None:
        sleep = asyncio.create_task(sleeper.sleep(LONG_S))
        await asyncio.sleep(0)
        await asyncio.to_thread(sleeper.wake)
        await asyncio.wait_for(sleep, TIMEOUT_S)

    asyncio.run(story())


def test_wakes_between_two_sleeps_end_the_next_sleep_and_no_other() -> None:
    """Headroom is freed while the loop works: the wake must not be lost, and two of them count once."""
    sleeper = WakeableSleep()

    async def story() -> bool:
        await sleeper.sleep(0)
        sleeper.wake()
        sleeper.wake()
        await asyncio.wait_for(sleeper.sleep(LONG_S), TIMEOUT_S)
        another = asyncio.create_task(sleeper.sleep(0.05))
        await asyncio.sleep(0.01)
        is_asleep = not another.done()
        await another
        return is_asleep

    assert asyncio.run(story())


def test_a_wake_before_the_first_sleep_and_after_the_loop_is_ignored() -> None:
    sleeper = WakeableSleep()
    sleeper.wake()
    asyncio.run(sleeper.sleep(0))
    sleeper.wake()
