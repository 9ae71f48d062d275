"""A key and a prompt, in the spellings by which a hostile provider could hide them from a filter."""

from __future__ import annotations

import base64
import codecs
from uuid import UUID

KEY = "sk-test-Zq3vXw9LmB7cRt5yUk2PdF8h"
PROMPT = "the patient Rumpelstilzchen has gout"


def spellings(secret: str) -> list[str]:
    """Spellings of a secret that a filter would miss."""
    data = secret.encode()
    return [
        secret,
        secret[::-1],
        secret.upper(),
        secret.swapcase(),
        " ".join(secret),
        "-".join(secret),
        "_".join(c for c in secret if c.isalnum()),
        "".join(c for c in secret if c.isalnum()),
        "".join(c for c in secret if c.isalnum())[::-1],
        codecs.encode(secret, "rot13"),
        base64.b64encode(data).decode(),
        base64.b32encode(data).decode().rstrip("="),
        base64.urlsafe_b64encode(data[::-1]).decode().rstrip("="),
        data.hex(),
        data[:16].hex(),
        str(UUID(bytes=data[:16])),
        data[:16].hex()[::-1],
        "".join(f"\\u{ord(c):04x}" for c in secret),
        "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in secret),
        *(word for word in secret.split() if len(word) > 3),
        secret[:12],
        secret[-8:],
    ]
