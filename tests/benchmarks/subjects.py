"""
The alternatives that callgate is compared with: a bare Celery task, and a chain of three tasks with plain SQL.

Both use the same simulator and the OpenAI SDK. `python -m tests.benchmarks.subjects bare|chain` is a worker; the
benchmark sets its broker, result backend and database in the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import psycopg2.pool
from celery import Celery
from openai import AsyncOpenAI, DefaultAioHttpClient, OpenAI

from worker.celery_ext.pool import AsyncTask

HOLD_NANO_USD, COST_NANO_USD = 200, 120
THREADS = 50


@cache
def subject(kind: str) -> Celery:
    """Return the Celery app of a subject, for its worker and for the benchmark."""
    app = Celery(kind, broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BROKER"])
    app.conf.update(
        task_default_queue=f"bench.{kind}",
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        result_expires=600,
        broker_connection_retry_on_startup=True,
        worker_pool="worker.celery_ext.pool:AsyncioPool" if kind == "bare" else "threads",
        worker_concurrency=1_000 if kind == "bare" else THREADS,
        result_backend_thread_safe=True,
        redis_max_connections=200,
        broker_pool_limit=64,
    )
    if kind == "bare":
        app.register_task(BareCall())
    else:
        _register_chain(app)
    return app


class BareCall(AsyncTask):
    """Makes the call and stores its result, without deduplication, hold or log."""

    name = "bench.call"
    _client: AsyncOpenAI | None = None

    async def arun(self, request: Mapping[str, Any], text: str) -> str:
        """Return the text of the answer."""
        if self._client is None:
            self._client = AsyncOpenAI(
                api_key="none",
                base_url=os.environ["BENCH_PROVIDER"],
                max_retries=0,
                http_client=DefaultAioHttpClient(),
            )
        reply = await self._client.chat.completions.create(**_chat_request(text))
        return reply.choices[0].message.content or ""


class Database:
    """Connections to the tables of the chain. Each statement commits on its own."""

    def __init__(self) -> None:
        self._pool = psycopg2.pool.ThreadedConnectionPool(0, THREADS, os.environ["BENCH_DATABASE"])

    def reserve(self) -> bool:
        """Hold money; False if the budget does not allow it."""
        sql = "UPDATE bench_budget SET reserved = reserved + %s WHERE reserved + spent + %s <= max"
        return self._execute(sql, HOLD_NANO_USD, HOLD_NANO_USD) > 0

    def log(self, input_tokens: int, output_tokens: int) -> None:
        """Post the cost of a call, and write its row."""
        self._execute(
            "WITH posted AS (UPDATE bench_budget SET reserved = reserved - %s, spent = spent + %s)"
            " INSERT INTO bench_log (input_tokens, output_tokens, cost) VALUES (%s, %s, %s)",
            HOLD_NANO_USD,
            COST_NANO_USD,
            input_tokens,
            output_tokens,
            COST_NANO_USD,
        )

    def _execute(self, sql: str, *parameters: object) -> int:
        connection = self._pool.getconn()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return int(cursor.rowcount)
        finally:
            self._pool.putconn(connection)


def _register_chain(app: Celery) -> None:
    """Register three tasks: reserve, call, log."""
    database = Database()
    client = OpenAI(api_key="none", base_url=os.environ["BENCH_PROVIDER"], max_retries=0)

    @app.task(name="bench.reserve")
    def reserve(text: str) -> str:
        if not database.reserve():
            raise RuntimeError("over budget")
        return text

    @app.task(name="bench.provider")
    def provider(text: str) -> dict[str, Any]:
        reply = client.chat.completions.create(**_chat_request(text))
        usage = reply.usage
        assert usage is not None
        return {
            "text": reply.choices[0].message.content,
            "input": usage.prompt_tokens,
            "output": usage.completion_tokens,
        }

    @app.task(name="bench.log")
    def log(reply: dict[str, Any]) -> str:
        database.log(reply["input"], reply["output"])
        return str(reply["text"])


def _chat_request(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "sim-1", "messages": messages, "max_completion_tokens": 100}


if __name__ == "__main__":
    app = subject(sys.argv[1])
    worker = app.Worker(
        hostname=f"{sys.argv[1]}@bench",
        without_gossip=True,
        without_mingle=True,
        loglevel="WARNING",
    )
    worker.start()
