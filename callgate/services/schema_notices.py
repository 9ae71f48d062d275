"""Logs once that a response schema is not sent as strictly as it could be."""

from __future__ import annotations

import hashlib

from callgate.domain.catalogue import Catalogue
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import sent_schema
from callgate.event_log import event_log

log = event_log(__name__)

REMEMBERED_MAX = 1_024
"""Schemas of one process that it has told about. Then it starts again."""


class SchemaNotices:
    """What one process has told about schemas."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._told: set[bytes] = set()

    def log_once(self, request: LLMRequest) -> None:
        """Log why its schema is not strict: the first time that this schema is submitted."""
        sent = sent_schema(request, self._catalogue.providers[request.provider])
        if sent is None or sent.why_not is None:
            return
        digest = hashlib.sha256(sent.text.encode()).digest()
        if digest in self._told:
            return
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        self._told.add(digest)
        log.warning(
            "schema.left_unchanged",
            provider=request.provider,
            call_type=request.call_type,
            why=sent.why_not,
        )
