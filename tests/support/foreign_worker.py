"""Another Celery app that consumes callgate's queue, and knows none of its tasks."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("foreign", broker=os.environ["CALLGATE_BROKER_URL"])
