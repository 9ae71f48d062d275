"""Provider limits in Postgres: `FlowPort`."""

from __future__ import annotations

from collections.abc import Sequence

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.limits import Declaration, Learned

PUBLISH = "SELECT callgate_publish_limits_v1(%(worker_id)s, %(digest)s, %(declaration)s)"
LEARN = """SELECT callgate_learn_limits_v1(
    %(providers)s::text[], %(models)s::text[], %(credentials)s::text[], %(measures)s::text[],
    %(windows_s)s::int[], %(amounts)s::bigint[], %(remaining)s::bigint[])"""


class PostgresFlow:
    """`FlowPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def publish(self, worker_id: str, declaration: Declaration) -> None:
        """Let a declaration count; see `FlowPort.publish`."""
        self._session.answers(
            PUBLISH,
            {
                "worker_id": worker_id,
                "digest": declaration.digest,
                "declaration": declaration.to_json(),
            },
        )

    def learn(self, batch: Sequence[Learned]) -> None:
        """Keep what providers named; see `FlowPort.learn`."""
        self._session.answers(
            LEARN,
            {
                "providers": [each.provider for each in batch],
                "models": [each.model for each in batch],
                "credentials": [each.credential for each in batch],
                "measures": [each.limit.measure.value for each in batch],
                "windows_s": [round(each.limit.window_s) for each in batch],
                "amounts": [each.limit.amount for each in batch],
                "remaining": [each.limit.remaining for each in batch],
            },
        )
