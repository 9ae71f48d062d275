"""`callgate worker`, but every logger says all it has to say."""

from __future__ import annotations

import logging
import sys

from config.settings import load_worker_settings
from worker.main import QUEUES, configure_logging, run_worker


def main() -> int:
    """Run calls and log them, at the level DEBUG wherever callgate did not choose another."""
    settings = load_worker_settings()
    configure_logging(as_json=settings.worker.log_json)
    logging.getLogger().setLevel(logging.DEBUG)
    return run_worker(settings, QUEUES["all"])


if __name__ == "__main__":
    sys.exit(main())
