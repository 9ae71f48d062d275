"""
Ping one worker: `python -m worker.healthcheck call@host`; the exit code is 0 if it answers in time.

Not `celery inspect ping`: it decodes every reply, and takes the first one for the worker's. Any user of the broker
could make a worker look dead.
"""

from __future__ import annotations

import sys

from kombu.exceptions import OperationalError

from callgate.domain.errors import CallgateError
from config.settings import load_worker_settings
from worker.app import worker_app

TIMEOUT_S = 10.0


def main(name: str) -> int:
    """Return 0 if the worker of this name answers."""
    try:
        app = worker_app(load_worker_settings())
        answers = app.control.inspect([name], timeout=TIMEOUT_S).ping()
    except (CallgateError, OperationalError, OSError) as exc:
        print(f"{name} cannot be asked: {exc}", file=sys.stderr)  # noqa: T201 - for the operator
        return 1
    return 0 if answers and name in answers else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
