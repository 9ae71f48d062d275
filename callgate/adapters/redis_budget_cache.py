"""
A read-through cache of budget figures in Redis or Valkey, for readers that accept slightly old figures.

Such readers are dashboards, and pipelines that pace themselves. Budget decisions never use this cache. Without it every
reader asks the ledger.

Several tenants may share the Redis and read and write anything in it. So each entry is encrypted and authenticated with
a key derived from the login that read the ledger. An entry of another login or organisation, a damaged one and an
expired one all count as missing and are overwritten.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import cast

import redis
from nacl.exceptions import CryptoError
from nacl.secret import Aead
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError, ResponseError

from callgate.domain.budgets import BudgetFigures
from callgate.event_log import event_log
from callgate.per_process import PerProcess

log = event_log(__name__)

ENTRY_MAX_BYTES = 64 * 1024
"""The most that is read as one entry. An organisation has a few budgets of about 300 bytes each."""
BIGINT_MAX = 2**63 - 1
SCRYPT = {"n": 2**15, "r": 8, "p": 1, "maxmem": 2**26}
"""Key derivation: 0.1 s and 32 MiB, once per process and for each guess at a password. Source: RFC 7914, 2."""
SALT = b"callgate budget copies 1"
"""Change it with the format of entries, so that no version reads the entries of another one."""
TIME_BYTES = 8
"""Length of the timestamp in front of the figures."""
_FIGURES = TypeAdapter(list[BudgetFigures])


class RedisBudgetCache:
    """`BudgetCachePort` over Redis or Valkey."""

    def __init__(
        self,
        url: str,
        *,
        login: str | None,
        ttl_s: float,
        prefix: str = "",
        timeout_s: float = 0.25,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Prepare the cache without connecting.

        Args:
            login: A secret that only processes with the same database login know. None: the entries are readable by
                this process only.
            ttl_s: The greatest age of figures.
            timeout_s: After so long without an answer the ledger is asked instead.
            now: Seconds since 1970. Hosts whose clocks differ by more than `ttl_s` share no entries.
        """
        self._redis = PerProcess(
            lambda: redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            )
        )
        self._login = login or secrets.token_hex()
        self._made_key: bytes | None = None
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._prefix = f"{prefix}callgate:budgets:"
        self._now = now

    def get(self, org_id: str, load: Callable[[str], list[BudgetFigures]]) -> list[BudgetFigures]:
        """The figures of an organisation, from the cache or from `load`; see `BudgetCachePort.get`."""
        key = self._prefix + self._name(org_id)
        try:
            entry = self._opened(self._read(key), org_id)
        except RedisError as exc:
            log.warning("budget_cache.unavailable", reason=type(exc).__name__)
            return load(org_id)
        if entry is not None:
            return entry
        asked_at_ms = self._now_ms()
        figures = load(org_id)
        try:
            self._redis().set(key, self._sealed(figures, org_id, asked_at_ms), px=self._ttl_ms)
        except RedisError as exc:
            log.warning("budget_cache.unavailable", reason=type(exc).__name__)
        return figures

    def close(self) -> None:
        """Close the connections."""
        self._redis().close()

    @property
    def _key(self) -> bytes:
        """The encryption key, derived from the login at its first use."""
        # Not `cached_property`: before Python 3.12 it has a lock, and a fork could copy it locked.
        if self._made_key is None:
            self._made_key = hashlib.scrypt(
                self._login.encode(), salt=SALT, dklen=Aead.KEY_SIZE, **SCRYPT
            )
        return self._made_key

    def _name(self, org_id: str) -> str:
        """The entry's name. Without the key it cannot be derived from an organisation, or traced back to one."""
        return hashlib.blake2b(org_id.encode(), key=self._key, digest_size=32).hexdigest()

    def _now_ms(self) -> int:
        return round(self._now() * 1000)

    def _sealed(self, figures: list[BudgetFigures], org_id: str, at_ms: int) -> bytes:
        """The encrypted entry: a timestamp in ms and the figures as JSON, bound to the organisation."""
        plain = at_ms.to_bytes(TIME_BYTES) + _FIGURES.dump_json(figures)
        return bytes(Aead(self._key).encrypt(plain, org_id.encode()))

    def _read(self, key: str) -> bytes:
        """The stored bytes, at most one more than `ENTRY_MAX_BYTES`; empty if the value is not a string."""
        try:
            return cast(bytes, self._redis().getrange(key, 0, ENTRY_MAX_BYTES))
        except ResponseError as exc:
            if "WRONGTYPE" in str(exc):
                return b""
            raise

    def _opened(self, sealed: bytes, org_id: str) -> list[BudgetFigures] | None:
        """The figures, if the entry is authentic, of this organisation and not expired; else None."""
        if len(sealed) > ENTRY_MAX_BYTES:
            return None
        try:
            plain = Aead(self._key).decrypt(sealed, org_id.encode())
            age_ms = self._now_ms() - int.from_bytes(plain[:TIME_BYTES])
            found = _FIGURES.validate_json(plain[TIME_BYTES:], strict=True)
        except (CryptoError, ValueError, ValidationError):
            return None
        if not 0 <= age_ms < self._ttl_ms:
            return None
        return found if all(_is_valid(figures, org_id) for figures in found) else None


def _is_valid(figures: BudgetFigures, org_id: str) -> bool:
    """True if the ledger could have returned these figures for this organisation."""
    amounts = (figures.limit_nano_usd, figures.reserved_nano_usd, figures.spent_nano_usd)
    return (
        figures.org_id == org_id
        and all(0 <= amount <= BIGINT_MAX for amount in amounts)
        and None not in (figures.starts_at.tzinfo, figures.ends_at.tzinfo)
    )
