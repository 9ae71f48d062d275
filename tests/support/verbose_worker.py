"""`callgate worker` with all libraries at the level DEBUG."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery.signals import worker_ready

from config.settings import load_worker_settings
from worker.log_config import configure_logging
from worker.main import QUEUES, run_worker

LIBRARIES = ("", "sqlalchemy", "celery", "kombu", "redis", "asyncio", "aiohttp", "genai_prices")
"""All libraries except those whose level callgate sets."""


def main() -> int:
    """Run calls and log them."""
    settings = load_worker_settings()
    configure_logging(as_json=settings.worker.log_json)
    worker_ready.connect(set_debug_level)
    return run_worker(settings, QUEUES["all"])


def set_debug_level(**_: Any) -> None:
    """Set the level after Celery has set its own."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.DEBUG)


if __name__ == "__main__":
    sys.exit(main())
