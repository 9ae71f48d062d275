"""
Size limits of all external input. Python code and the CHECK constraints of the tables both use them.

The constraints are needed because a client's login may call the ledger's functions without this code. A row that is too
large is refused alone, without its batch.
"""

from __future__ import annotations

import json

from callgate.domain.errors import InvalidRequest

NAME_CHARS_MAX = 128
"""Names of organisations, call types, providers and models; see `requests.Name`."""
TRACE_ID_CHARS_MAX = 128
IDEMPOTENCY_KEY_CHARS_MAX = 255
LINK_MAX_BYTES = 64 * 1024
LINKS_PER_CALL_MAX = 10_000
"""Undelivered links of one call."""
REQUEST_MAX_BYTES = 32 * 2**20
"""A request as JSON, as it is stored and sent. The gates may allow less."""
INPUT_TOKENS_MAX = 2 * REQUEST_MAX_BYTES
"""Upper limit of a token bound: a request's bound is at most its bytes plus framing."""
REPLY_MAX_BYTES = 64 * 2**20
"""A reply as JSON: the most that is read from a provider, with every character escaped."""
ERROR_MAX_BYTES = 16 * 1024
"""A failure or a refusal as JSON."""
HASH_BYTES = 32
FINGERPRINT_CHARS_MAX = 64
SCOPE_CHARS_MAX = 160
"""A budget's scope, for example `call_type:` and a name."""
ZONE_CHARS_MAX = 64
PROCESS_CHARS_MAX = 512
"""The name of a worker process with its claim number."""
SOURCE_CHARS_MAX = 2_000
"""The source of a price."""
LOGIN_CHARS_MAX = 63
"""Postgres truncates names to this length."""
OPERATOR_TEXT_CHARS_MAX = 4_000
"""Free text of operators: reasons and notes."""
DETAIL_MAX_BYTES = 64 * 1024
SELECTION_MAX_BYTES = 1_024 * 1_024
"""The filter of a redrive, with ten thousand ids at most."""
QUEUE_CHARS_MAX = 1_024
UNPROCESSABLE_MAX_BYTES = 64 * 1024
LINK_FAILURE_CHARS_MAX = 500
"""The reason why a link was not delivered."""
ROWS_MAX = 1_000
"""Rows that a client may read or submit in one statement."""
UNSPECIFIED = "unspecified"
LISTED_MAX = 10_000
"""Rows in one listing."""


def reason_json(code: str, message: str) -> str:
    """
    Write the reason why a call ended as the ledger stores it: `{"code": ..., "message": ...}`.

    Raises:
        InvalidRequest: The JSON is longer than `ERROR_MAX_BYTES`.
    """
    text = json.dumps({"code": code, "message": message})
    if len(text) > ERROR_MAX_BYTES:
        raise InvalidRequest(f"a reason has at most {ERROR_MAX_BYTES} bytes, as JSON in ASCII")
    return text


def error_code(error: str) -> str:
    """
    Read the code of an error (JSON), to keep it as the reason why a call has ended; `unspecified` if it has none.

    The same as `callgate_error_code_v1`.
    """
    try:
        fields = json.loads(error)
    except ValueError:
        return UNSPECIFIED
    code = fields.get("code") if isinstance(fields, dict) else None
    return str(code)[:NAME_CHARS_MAX] if code else UNSPECIFIED


def one_line(text: str, chars_max: int) -> str:
    """The text cut to `chars_max`, with unprintable characters as spaces, so that every column accepts it."""
    return "".join(c if c.isprintable() else " " for c in text[:chars_max])
