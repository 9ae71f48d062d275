"""
How large what comes from outside may be: the one place, for what checks it in Python and for the CHECKs of the tables.

A row that is larger is refused as that row's own, whichever way it comes: a client's login may call the functions of
the ledger without any code of ours.
"""

from __future__ import annotations

import json

from callgate.domain.errors import InvalidRequest

NAME_CHARS_MAX = 128
"""Of organisations, call types, providers, models; see `requests.Name`."""
TRACE_ID_CHARS_MAX = 128
IDEMPOTENCY_KEY_CHARS_MAX = 255
LINK_BYTES_MAX = 64 * 1024
LINKS_PER_CALL_MAX = 10_000
"""Links of one call that wait to be delivered."""
REQUEST_BYTES_MAX = 32 * 2**20
"""A request as JSON, as it is stored and sent. What gates let through may be less."""
INPUT_TOKENS_MAX = 2 * REQUEST_BYTES_MAX
"""No bound of a request's tokens is above its bytes and some framing."""
REPLY_BYTES_MAX = 64 * 2**20
"""A reply as JSON: what is read of a provider, with every character escaped."""
ERROR_BYTES_MAX = 16 * 1024
"""A failure or a refusal as JSON."""
HASH_BYTES = 32
FINGERPRINT_CHARS_MAX = 64
SCOPE_CHARS_MAX = 160
"""What a budget belongs to: `call_type:` and a name."""
ZONE_CHARS_MAX = 64
PROCESS_CHARS_MAX = 512
"""A worker process, with its claim number."""
SOURCE_CHARS_MAX = 2_000
"""Where a price came from."""
LOGIN_CHARS_MAX = 63
"""As Postgres cuts names."""
WORDS_CHARS_MAX = 4_000
"""What operators say, and what they mean by it."""
DETAIL_BYTES_MAX = 64 * 1024
QUEUE_CHARS_MAX = 1_024
STRAY_BYTES_MAX = 64 * 1024
WHY_CHARS_MAX = 500
"""Why a link was not delivered."""
ROWS_MAX = 1_000
"""What a client may ask for, or submit, by one statement."""
UNSPECIFIED = "unspecified"
LISTED_MAX = 10_000
"""What one statement lists."""


def reason_json(code: str, message: str) -> str:
    """
    Say why a call is ended, as the ledger keeps it.

    Raises:
        InvalidRequest: It is too long.
    """
    text = json.dumps({"code": code, "message": message})
    if len(text) > ERROR_BYTES_MAX:
        raise InvalidRequest(f"a reason has at most {ERROR_BYTES_MAX} bytes, as JSON in ASCII")
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
    """Text that any column takes: without what cannot be printed, and cut."""
    return "".join(c if c.isprintable() else " " for c in text[:chars_max])
