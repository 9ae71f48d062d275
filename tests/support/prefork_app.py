"""A pipeline on the prefork pool of Celery. Its parent process uses the client before it forks."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init

from callgate import Client
from tests.support.forking_pipeline import Organisations, a_request, limit, org

app = Celery("pipeline", broker=os.environ["CALLGATE_BROKER_URL"], set_as_current=False)
app.conf.update(
    task_default_queue="pipeline", task_ignore_result=True, worker_prefetch_multiplier=1
)
organisations: list[Organisations] = []


@worker_init.connect
def use_the_client(**_: Any) -> None:
    """Use the client before there are children: read a budget, and submit."""
    client = Client.from_env()
    organisations.append(Organisations(client))
    (budget,) = client.budgets(org(0))
    assert budget.limit_nano_usd == limit(0)


@app.task(name="pipeline.check", shared=False)
def check(n: int) -> None:
    """Check all answers for one organisation, then submit a call as a sign of success."""
    organisations[0].check(n)
    organisations[0].client.submit(a_request(n, "all was right"))
