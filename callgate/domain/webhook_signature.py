"""
Signatures of webhook messages, as Standard Webhooks says.

Source: https://github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, symmetric signatures.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins
SECRET_MIN_BYTES = 24
SECRET_MAX_BYTES = 64


def secret_bytes(secret: str) -> bytes:
    """
    The key in a secret: base64 after `whsec_`.

    Raises:
        ValueError: It is none. The message quotes nothing of it.
    """
    form = f"{SECRET_PREFIX} and {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} random bytes in base64"
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"must be {form}") from None
    if not secret.startswith(SECRET_PREFIX) or not SECRET_MIN_BYTES <= len(key) <= SECRET_MAX_BYTES:
        raise ValueError(f"must be {form}")
    return key


def signed_headers(
    keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """
    The three headers of a message. The time is that of the try, so that receivers can refuse old copies.

    Each key makes one signature. A receiver accepts a message if one of them is that of its own key.
    """
    signed = b".".join((message_id.encode(), str(timestamp_s).encode(), body))
    macs = (hmac.digest(key, signed, "sha256") for key in keys)
    signatures = (f"v1,{base64.b64encode(mac).decode()}" for mac in macs)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }
