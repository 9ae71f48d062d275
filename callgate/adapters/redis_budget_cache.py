"""
Budget figures for readers that may be a moment behind: dashboards, pipelines that pace themselves.

A copy in Redis or Valkey, read through from the ledger and kept for a short while. It is never asked for admission, and
without it every reader simply asks the ledger.

Several tenants may share that Redis, and may read and write what they like there. So each copy is sealed: only holders
of the login that read it from the ledger can open it, or make another one. What is no copy of that login, of this
organisation and of the last moments counts as none, and is written over.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import cast

import redis
import structlog
from nacl.exceptions import CryptoError
from nacl.secret import Aead
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError, ResponseError

from callgate.domain.budgets import BudgetFigures
from callgate.per_process import PerProcess

log = structlog.get_logger(__name__)

COPY_BYTES_MAX = 64 * 1024
"""An organisation has a handful of budgets, each of some 300 bytes; more is not ours, and is not read."""
BIGINT_MAX = 2**63 - 1
SCRYPT = {"n": 2**15, "r": 8, "p": 1, "maxmem": 2**26}
"""A tenth of a second and 32 MiB, once per process: so much each guess at a password costs. Source: RFC 7914, 2."""
SALT = b"callgate budget copies 1"
"""A copy that is made in another way needs another salt, so that no version takes one of another."""
TIME_BYTES = 8
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
        Connect to nothing yet. Figures are at most `ttl_s` seconds behind; a slow cache is given up on quickly.

        Args:
            login: What only those know who may ask the ledger as this process does; see `db.url.login_secret`. None:
                copies are for this process alone.
            now: Seconds since 1970. Where the clocks of two hosts differ by more than `ttl_s`, they share no copies.
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
        """The figures of an organisation; see `BudgetCachePort.get`."""
        key = self._prefix + self._name(org_id)
        try:
            copy = self._opened(self._read(key), org_id)
        except RedisError as exc:
            log.warning("budget_cache.unavailable", reason=type(exc).__name__)
            return load(org_id)
        if copy is not None:
            return copy
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
        # Not `cached_property`: before Python 3.12 it has a lock, which a fork may find held.
        if self._made_key is None:
            self._made_key = hashlib.scrypt(
                self._login.encode(), salt=SALT, dklen=Aead.KEY_SIZE, **SCRYPT
            )
        return self._made_key

    def _name(self, org_id: str) -> str:
        """Where the copy is: nobody else can say of which organisation it is, nor find that of one."""
        return hashlib.blake2b(org_id.encode(), key=self._key, digest_size=32).hexdigest()

    def _now_ms(self) -> int:
        return round(self._now() * 1000)

    def _sealed(self, figures: list[BudgetFigures], org_id: str, at_ms: int) -> bytes:
        told = at_ms.to_bytes(TIME_BYTES) + _FIGURES.dump_json(figures)
        return bytes(Aead(self._key).encrypt(told, org_id.encode()))

    def _read(self, key: str) -> bytes:
        """What stands there, one byte more than a copy may have at most; nothing of another type of value."""
        try:
            return cast(bytes, self._redis().getrange(key, 0, COPY_BYTES_MAX))
        except ResponseError as exc:
            if "WRONGTYPE" in str(exc):
                return b""
            raise

    def _opened(self, sealed: bytes, org_id: str) -> list[BudgetFigures] | None:
        """The figures, if this is a copy of ours: whole, of this organisation and login, and of the last moments."""
        if len(sealed) > COPY_BYTES_MAX:
            return None
        try:
            told = Aead(self._key).decrypt(sealed, org_id.encode())
            age_ms = self._now_ms() - int.from_bytes(told[:TIME_BYTES])
            copy = _FIGURES.validate_json(told[TIME_BYTES:], strict=True)
        except (CryptoError, ValueError, ValidationError):
            return None
        if not 0 <= age_ms < self._ttl_ms:
            return None
        return copy if all(_is_of(org_id, figures) for figures in copy) else None


def _is_of(org_id: str, figures: BudgetFigures) -> bool:
    """Ask whether the ledger could have said so of this organisation."""
    amounts = (figures.limit_nano_usd, figures.reserved_nano_usd, figures.spent_nano_usd)
    return (
        figures.org_id == org_id
        and all(0 <= amount <= BIGINT_MAX for amount in amounts)
        and None not in (figures.starts_at.tzinfo, figures.ends_at.tzinfo)
    )
