"""Tokens of forms: each may be used once, so that a form that is sent twice changes something once."""

from __future__ import annotations

import secrets
from collections import OrderedDict

USED_MAX = 10_000
"""Remembered at once. Browsers send a form a second time within seconds."""


class OnceTokens:
    """Gives tokens, and remembers which were used. One process; one thread."""

    def __init__(self) -> None:
        self._used: OrderedDict[str, None] = OrderedDict()

    def new(self) -> str:
        """Return a token."""
        return secrets.token_urlsafe(12)

    def use(self, token: str) -> bool:
        """Return False if it was used before."""
        if token in self._used:
            return False
        self._used[token] = None
        if len(self._used) > USED_MAX:
            self._used.popitem(last=False)
        return True
