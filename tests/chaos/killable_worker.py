"""
A real worker process with a fate: it dies at a named point, or its clock is wrong.

    python -m tests.chaos.killable_worker --clock-shift-s 3600     with TZ set, if the time zone is to be wrong too

Forked by the nursery it runs `main`. The clock has to be wrong before anything else is imported, so a process with a
wrong clock is started by itself.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from functools import partial


def main(point: str | None = None, passes: int = 1) -> int:
    """Run a worker for both queues; with a point, until it gets there the n-th time."""
    from config.settings import load_worker_settings
    from tests.chaos.kill_points import KillPoint, Point, compose
    from worker.bootstrap import bootstrap
    from worker.log_config import configure_logging
    from worker.main import QUEUES, run_worker

    settings = load_worker_settings()
    configure_logging(as_json=False)
    chosen = bootstrap if point is None else partial(compose, doom=KillPoint(Point(point), passes))
    return run_worker(settings, QUEUES["all"], name="chaos", compose=chosen)


def shift_clock(seconds: float) -> None:
    """Have this process read wall-clock time that is wrong by so many seconds; monotonic time stays right."""
    true_time, true_datetime = time.time, datetime.datetime

    class ShiftedDatetime(true_datetime):
        """Reads the wrong clock, and is what it was in everything else."""

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
    # For the nursery, which forks workers that have everything imported.
    import tests.chaos.kill_points  # noqa: F401
    import worker.main  # noqa: F401
