"""What any server or gateway can do to a reply, whatever its protocol, and the end of the call."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.contract.reply_case import Case, Reply, dead

DEADLINE_S = 0.5
HUGE_BYTES = 10 * 10**6
PAGE = Reply(
    raw=b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
    headers={"Content-Type": "text/html"},
)


def faults(name: str, fine: Reply, *, protocol: str, **declared: Any) -> Iterator[Case]:
    """
    Each fault as a case.

    Args:
        name: Of the protocol, for the names of the cases.
        fine: A good reply of the protocol.
        declared: The rest of the provider's entry in the catalogue.
    """
    entry = {"protocol": protocol, **declared}
    for fault, reply in _broken(fine).items():
        yield dead(
            f"{name}: {fault}",
            reply,
            posted=None,
            attempts=2,
            code="invalid_response",
            entry=entry,
        )
    for fault, reply in _slow(fine).items():
        yield dead(
            f"{name}: {fault}",
            reply,
            posted=None,
            attempts=2,
            code="timeout",
            deadline_s=DEADLINE_S,
            entry=entry,
        )
    for fault, reply in _large(fine).items():
        yield dead(f"{name}: {fault}", reply, posted=None, code="reply_too_large", entry=entry)
    for fault, reply in _never_fitting().items():
        yield dead(f"{name}: {fault}", reply, posted=0, code="request_too_large", entry=entry)
    for coding, reply in _compressed(fine).items():
        yield Case(f"{name}: {coding}", (reply,), entry=entry)
    yield Case(
        f"{name}: dropped, then fine",
        (replace(fine, cut=5), fine),
        holds=1,
        attempts=2,
        entry=entry,
    )


def _broken(fine: Reply) -> dict[str, Reply]:
    size = len(fine.data)
    return {
        "a page": PAGE,
        "half of it": Reply(raw=fine.data[: size // 2]),
        "dropped in the middle": replace(fine, cut=size // 2),
        "dropped before the body": replace(fine, cut=size),
        "a length above the body": replace(fine, length=size + 9),
        "a length below the body": replace(fine, length=size - 9),
    }


def _slow(fine: Reply) -> dict[str, Reply]:
    return {
        "after the deadline": replace(fine, pause_s=2 * DEADLINE_S),
        "a slow drip past the deadline": replace(fine, drip_s=2 * DEADLINE_S),
    }


def _never_fitting() -> dict[str, Reply]:
    message = "Request too large for m1: limit 6000 tokens per minute, requested 9000"
    body = {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}
    return {
        "429 that can never fit": Reply(body, 429, {"Retry-After": "1"}),
        "429 that can never fit, in a 200": Reply(body),
    }


def _compressed(fine: Reply) -> dict[str, Reply]:
    half = len(fine.data) // 2
    members = gzip.compress(fine.data[:half]) + gzip.compress(fine.data[half:])
    return {
        "gzip in two members": Reply(raw=members, headers={"Content-Encoding": "gzip"}),
        "x-gzip": Reply(raw=gzip.compress(fine.data), headers={"Content-Encoding": "x-gzip"}),
    }


def _large(fine: Reply) -> dict[str, Reply]:
    content = b"x" * HUGE_BYTES
    return {
        "ten megabytes": Reply(raw=fine.data[:-1] + b',"x":"' + content + b'"}'),
        "ten megabytes of text": Reply(raw=fine.data.replace(b"fine", content)),
        "deeply nested": Reply(raw=b"[" * 10**5),
    }
