"""
A real worker process that kills itself at a named point, or has a wrong clock.

    python -m tests.chaos.killable_worker --clock-shift-s 3600     with TZ set, if the time zone is to be wrong too

The fork server runs `main` in a child. The clock must be wrong before anything else is imported, so a process with a
wrong clock is not forked but started.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from functools import partial


def main(point: str | None = None, passes: int = 1) -> int:
    """Run a worker for both queues; with a point, until its pass number `passes` there."""
    from config.settings import load_worker_settings
    from tests.chaos.kill_points import KillPoint, Point, compose
    from worker.bootstrap import bootstrap
    from worker.log_config import configure_logging
    from worker.main import QUEUES, run_worker

    settings = load_worker_settings()
    configure_logging(as_json=False)
    composition = (
        bootstrap if point is None else partial(compose, kill_point=KillPoint(Point(point), passes))
    )
    return run_worker(settings, QUEUES["all"], name="chaos", compose=composition)


def shift_clock(seconds: float) -> None:
    """Shift the wall clock of this process by some seconds; monotonic time stays correct."""
    true_time, true_datetime = time.time, datetime.datetime

    class ShiftedDatetime(true_datetime):  # type: ignore[misc, valid-type]
        """`datetime` with the shifted clock."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return true_datetime.now(tz) + datetime.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> datetime.datetime:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    time.time = lambda: true_time() + seconds
    datetime.datetime = ShiftedDatetime  # type: ignore[misc]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.killable_worker")
    parser.add_argument("--clock-shift-s", type=float, default=0.0)
    shift_clock(parser.parse_args().clock_shift_s)
    sys.exit(main())
else:
    # Imported by the fork server, so that forked workers need no imports.
    import tests.chaos.kill_points  # noqa: F401
    import worker.main  # noqa: F401
