"""
Flower's passwords, and a limit on wrong guesses.

A wrong password costs its sender one token from two buckets: that of its address, and a shared one. Without a token no
password is compared. Guessing does not lock out users who know the password: a browser that has logged in once has a
signed cookie, its own bucket, and does not use the shared one. Source: OWASP, "Device Cookies".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

WRONG_AT_ONCE = 10
WRONG_EVERY_S = 5.0
"""After that one per so many seconds, from one address: 17,000 per day."""
ALL_AT_ONCE = 100
ALL_EVERY_S = 0.5
"""From all addresses together: 170,000 per day."""
SENDERS_MAX = 1_024
"""Remembered at once. A forgotten one starts with a full bucket; the shared bucket limits what that gains."""


@dataclass
class Bucket:
    """A token bucket: one token per `every_s` seconds, up to `size`."""

    size: int
    every_s: float
    level: float
    at: float

    def wait_s(self, now: float) -> float:
        """Return the time until the next token; 0 if there is one."""
        self.level = min(self.size, self.level + (now - self.at) / self.every_s)
        self.at = now
        return max(0.0, (1 - self.level) * self.every_s)


class PasswordGuard:
    """
    Compares passwords, and limits how often.

    Args:
        secrets: Each is `user:password`.
        now: Seconds of a monotonic clock.
    """

    def __init__(self, secrets: Sequence[str], now: float) -> None:
        self._users = [(_digest(one.encode()), one.partition(":")[0]) for one in secrets]
        self._senders: OrderedDict[str, Bucket] = OrderedDict()
        self._all = Bucket(ALL_AT_ONCE, ALL_EVERY_S, ALL_AT_ONCE, now)

    def wait_s(self, sender: str, now: float, *, is_known: bool) -> float:
        """Return how long a sender must wait before its next try; 0 if it may try now."""
        own = self._senders.get(sender)
        own_s = own.wait_s(now) if own else 0.0
        return own_s if is_known else max(own_s, self._all.wait_s(now))

    def user_of(self, header: str) -> str | None:
        """Compare an `Authorization` header with every password, in constant time; return whose it is."""
        scheme, _, word = header.partition(" ")
        try:
            given = base64.b64decode(word.strip(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        digest = _digest(given)
        users = [user for known, user in self._users if hmac.compare_digest(digest, known)]
        return users[0] if users and scheme.lower() == "basic" else None

    def note_wrong(self, sender: str, now: float, *, is_known: bool) -> None:
        """Take the tokens for a wrong password."""
        own = self._senders.setdefault(
            sender, Bucket(WRONG_AT_ONCE, WRONG_EVERY_S, WRONG_AT_ONCE, now)
        )
        self._senders.move_to_end(sender)
        if len(self._senders) > SENDERS_MAX:
            self._senders.popitem(last=False)
        for bucket in [own] if is_known else [own, self._all]:
            bucket.wait_s(now)
            bucket.level -= 1


def sender_of(address: str) -> str:
    """Return the key of a bucket: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 64), strict=False))


def _digest(secret: bytes) -> bytes:
    """Hash to a fixed length, for the comparison."""
    return hashlib.sha256(secret).digest()
