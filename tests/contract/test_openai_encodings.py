"""Compressed replies: decoded by RFC 9110, within the size limit of every reply."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.providers.http import reply_bounds
from callgate.adapters.providers.http.decompression import Inflater
from callgate.domain.provider import Billing, ProviderReply
from tests.support.openai_attempts import AttemptResult, attempt
from tests.support.provider_worlds import Exchange, Received, chat, http, sends

BODY = json.dumps(chat("fine")).encode()
GZIP = b"\x1f\x8b"
Coding = Callable[[bytes], bytes]


pytestmark = pytest.mark.usefixtures("no_proxies")


def raw_deflate(data: bytes, level: int = -1) -> bytes:
    """Deflate without zlib's header, as some servers send it."""
    stream = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def members(data: bytes) -> bytes:
    """Gzip in two members, cut in the middle."""
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


def plain(data: bytes) -> bytes:
    """Not encoded."""
    return data


def replied(encoding: str, body: bytes) -> AttemptResult:
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
def test_a_compressed_reply_is_decoded(encoding: str, coding: Coding) -> None:
    """It was paid for, so the whole answer and its usage count."""
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
def test_a_reply_in_an_unknown_coding_is_not_retried(encoding: str, coding: Coding) -> None:
    """The same request would bring the same coding."""
    outcome = replied(encoding, coding(BODY))

    assert outcome.classification == ("invalid_response", False, Billing.UNKNOWN)


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
def test_a_damaged_compressed_reply_has_an_unknown_bill(encoding: str, coding: Coding) -> None:
    outcome = replied(encoding, coding(BODY))

    assert outcome.classification == ("invalid_response", True, Billing.UNKNOWN)


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
    """A gzip member may end, and the next one begin, in any chunk."""
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
def test_decompression_has_a_size_limit(
    monkeypatch: pytest.MonkeyPatch, encoding: str, coding: Coding
) -> None:
    """A kilobyte must not become a gigabyte in a worker's memory, at any layer of coding."""
    monkeypatch.setattr(reply_bounds, "REPLY_MAX_BYTES", 10_000)

    outcome = replied(encoding, coding(json.dumps(chat("x" * 10**6)).encode()))

    assert outcome.classification == ("reply_too_large", False, Billing.UNKNOWN)


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    st.lists(st.integers(1, 40), min_size=1),
    st.integers(1, 30),
)
def test_gzip_members_may_be_split_anywhere(
    parts: list[bytes], cuts: list[int], max_bytes: int
) -> None:
    """All bytes come out in order, and a step returns no more than its limit."""
    data, inflation, out, index = (
        b"".join(gzip.compress(part) for part in parts),
        Inflater(),
        b"",
        0,
    )
    while data:
        cut = cuts[index % len(cuts)]
        out += inflation.inflate(data[:cut], 1000)
        data, index = data[cut:], index + 1

    assert out == b"".join(parts)
    assert len(Inflater().inflate(gzip.compress(b"x" * 1000), max_bytes)) == max_bytes
