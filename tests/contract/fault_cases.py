"""What any server can do to a reply, whatever its protocol. None of it is a result, and its bill is unknown."""

from __future__ import annotations

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


def faults(name: str, fine: Reply, **entry: Any) -> Iterator[Case]:
    """
    Each fault as a case.

    Args:
        fine: A good reply of the protocol.
        entry: Of the provider, in the catalogue.
    """
    size = len(fine.data)
    twice: dict[str, Any] = {"posted": None, "attempts": 2, "entry": entry}
    once: dict[str, Any] = {**twice, "attempts": 1}
    in_time: dict[str, Any] = {**twice, "deadline_s": DEADLINE_S, "code": "timeout"}
    late, slow = replace(fine, pause_s=2 * DEADLINE_S), replace(fine, drip_s=2 * DEADLINE_S)
    huge = Reply(raw=fine.data[:-1] + b',"x":"' + b"x" * HUGE_BYTES + b'"}')
    yield dead(f"{name}: a page", PAGE, code="invalid_response", says="not JSON", **twice)
    yield dead(
        f"{name}: half of it",
        Reply(raw=fine.data[: size // 2]),
        code="invalid_response",
        **twice,
    )
    yield dead(
        f"{name}: dropped in the middle",
        replace(fine, cut=size // 2),
        code="invalid_response",
        **twice,
    )
    yield dead(
        f"{name}: dropped before the body",
        replace(fine, cut=size),
        code="invalid_response",
        **twice,
    )
    yield dead(
        f"{name}: a length above the body",
        replace(fine, length=size + 9),
        code="invalid_response",
        **twice,
    )
    yield dead(
        f"{name}: a length below the body",
        replace(fine, length=size - 9),
        code="invalid_response",
        **twice,
    )
    yield dead(f"{name}: after the deadline", late, **in_time)
    yield dead(f"{name}: a slow drip past the deadline", slow, **in_time)
    yield dead(f"{name}: ten megabytes", huge, code="reply_too_large", **once)
    yield dead(f"{name}: deeply nested", Reply(raw=b"[" * 10**5), code="reply_too_large", **once)
    yield Case(
        f"{name}: dropped, then fine",
        (replace(fine, cut=5), fine),
        holds=1,
        attempts=2,
        entry=entry,
    )
