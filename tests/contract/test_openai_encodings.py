"""Replies that come compressed although nobody asked: read as RFC 9110 has it, within the bound of every reply."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.providers.openai import transport as openai_transport
from callgate.adapters.providers.openai.transport import _Inflation
from callgate.domain.provider import Billing, ProviderReply
from tests.contract.openai_attempts import Outcome, attempt, forget_proxies
from tests.contract.provider_worlds import Exchange, Received, chat, http, sends

BODY = json.dumps(chat("fine")).encode()
GZIP = b"\x1f\x8b"
Coding = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


def raw_deflate(data: bytes, level: int = -1) -> bytes:
    """Without zlib's header, as some servers understand `deflate`."""
    stream = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def members(data: bytes) -> bytes:
    """Gzip in two members, cut in the middle."""
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


def plain(data: bytes) -> bytes:
    """As it is."""
    return data


def replied(encoding: str, body: bytes) -> Outcome:
    """One attempt that gets this body under this Content-Encoding."""
    return attempt(sends(http(body, headers={"content-encoding": encoding})))


@pytest.mark.parametrize(
    ("encoding", "coding"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", gzip.compress),
        (" gzip ", gzip.compress),
        ("gzip", members),
        ("x-gzip", members),
        ("gzip", lambda data: members(data) + b"\0" * 512),
        ("gzip", lambda data: gzip.compress(b"") + b"\0" + gzip.compress(data)),
        ("gzip", lambda data: gzip.compress(data) + b"\r\n"),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, 9)),
        ("Deflate", raw_deflate),
        ("deflate", lambda data: raw_deflate(data, 0)),
        ("deflate", gzip.compress),
        ("gzip", zlib.compress),
        ("", plain),
        ("identity", plain),
        ("identity, Identity", plain),
        ("br", plain),
        ("gzip, identity", gzip.compress),
        ("identity,x-gzip", members),
        (",gzip,,", gzip.compress),
        ("gzip, gzip", lambda data: members(members(data))),
        ("deflate, gzip", lambda data: gzip.compress(raw_deflate(data))),
        ("gzip, deflate", lambda data: zlib.compress(gzip.compress(data))),
        ("gzip\r\ncontent-encoding: deflate", lambda data: zlib.compress(gzip.compress(data))),
    ],
)
def test_a_reply_is_read_whatever_coding_it_came_in(encoding: str, coding: Coding) -> None:
    """It was paid for: the whole answer counts, and its usage."""
    outcome = replied(encoding, coding(BODY))

    assert isinstance(outcome.answer, ProviderReply)
    assert outcome.answer.texts == ("fine",)


@pytest.mark.parametrize(
    ("encoding", "coding"),
    [
        ("br", raw_deflate),
        ("zstd", gzip.compress),
        ("gzip, br", gzip.compress),
        ("gzip;q=1", gzip.compress),
        ("gzip, gzip, gzip, gzip, gzip", gzip.compress),
    ],
)
def test_a_reply_in_no_known_coding_is_not_asked_for_again(encoding: str, coding: Coding) -> None:
    """The same request can only bring the same again."""
    outcome = replied(encoding, coding(BODY))

    assert outcome.verdict == ("invalid_response", False, Billing.UNKNOWN)


@pytest.mark.parametrize(
    ("encoding", "coding"),
    [
        ("gzip", lambda data: GZIP + data),
        ("gzip", lambda data: gzip.compress(data)[:-20]),
        ("gzip", lambda data: members(data)[:-20]),
        ("gzip", lambda data: gzip.compress(data)[:-8] + b"\0" * 8),
        ("deflate", lambda data: b"\xff" + data),
    ],
)
def test_a_reply_that_is_broken_in_its_coding_is_unknown(encoding: str, coding: Coding) -> None:
    """Broken or cut off: nobody can say what was in it."""
    outcome = replied(encoding, coding(BODY))

    assert outcome.verdict == ("invalid_response", True, Billing.UNKNOWN)


def _pieces(encoding: str, body: bytes) -> Exchange:
    """Send a body byte by byte."""

    async def exchange(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"", headers={"content-encoding": encoding}, length=len(body)))
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    return exchange


def test_a_reply_may_come_byte_by_byte() -> None:
    """A member may end, and the next one begin, in any of them."""
    outcome = attempt(_pieces("gzip", gzip.compress(BODY[:9]) + b"\0\0" + gzip.compress(BODY[9:])))

    assert isinstance(outcome.answer, ProviderReply)


@pytest.mark.parametrize(
    ("encoding", "coding"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", members),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ("gzip", lambda data: gzip.compress(b"") * 600),
        ("gzip, gzip", lambda _: gzip.compress(gzip.compress(b"") * 10**5)),
        ("identity", plain),
    ],
)
def test_a_reply_is_inflated_within_the_bound(
    monkeypatch: pytest.MonkeyPatch, encoding: str, coding: Coding
) -> None:
    """A kilobyte must not become a gigabyte in the memory of a worker, at no layer."""
    monkeypatch.setattr(openai_transport, "REPLY_BYTES_MAX", 10_000)

    outcome = replied(encoding, coding(json.dumps(chat("x" * 10**6)).encode()))

    assert outcome.verdict == ("reply_too_large", False, Billing.UNKNOWN)


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    st.lists(st.integers(1, 40), min_size=1),
    st.integers(1, 30),
)
def test_members_are_read_wherever_they_are_cut(
    parts: list[bytes], cuts: list[int], bytes_max: int
) -> None:
    """All bytes come out in their order; a piece brings no more than was asked for."""
    data, inflation, out, index = (
        b"".join(gzip.compress(part) for part in parts),
        _Inflation(),
        b"",
        0,
    )
    while data:
        cut = cuts[index % len(cuts)]
        out += inflation.undo(data[:cut], 1000)
        data, index = data[cut:], index + 1

    assert out == b"".join(parts)
    assert len(_Inflation().undo(gzip.compress(b"x" * 1000), bytes_max)) == bytes_max
