"""`callgate worker`, but every library says all it has to say."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery.signals import worker_ready

from config.settings import load_worker_settings
from worker.log_config import configure_logging
from worker.main import QUEUES, run_worker

LIBRARIES = ("", "sqlalchemy", "celery", "kombu", "redis", "asyncio", "aiohttp", "genai_prices")
"""All but those that callgate itself keeps quiet."""


def main() -> int:
    """Run calls and log them, at the level DEBUG."""
    settings = load_worker_settings()
    configure_logging(as_json=settings.worker.log_json)
    worker_ready.connect(be_loud)
    return run_worker(settings, QUEUES["all"])


def be_loud(**_: Any) -> None:
    """Celery sets the level of the root logger when it starts; so after that."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.DEBUG)


if __name__ == "__main__":
    sys.exit(main())
