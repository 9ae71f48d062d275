"""Replies of Parrot's protocol, and what each means for the call and its bill: cases of a protocol of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.contract.fault_cases import faults
from tests.contract.reply_case import (
    CONTRADICTORY,
    COST,
    FULL_COST,
    IMPLAUSIBLE,
    MISSING,
    SCHEMA,
    ZERO,
    Case,
    Reply,
    dead,
)
from tests.support.own_protocol import PRESET

FED = {"in": 11, "known": 0, "out": 7}
FULL = {**FED, "out": 100}
CALL = {"id": "c1", "trick": "add", "with": {"a": 1}}
ADD = {"tools": ({"name": "add"},)}


def said(say: object = "fine", why: object = "done", fed: object = FED, **fields: Any) -> Reply:
    """A reply."""
    return Reply({"say": say, "why": why, "model": "sim-1", "fed": fed, **fields})


def squawk(kind: object, status: int = 200, **fields: Any) -> Reply:
    """An error, by default in the body of a 200."""
    return Reply({"squawk": {"kind": kind, "text": "no"}, **fields}, status)


def with_fed(name: str, posted: int | None, *anomalies: str, **counts: object) -> Case:
    """A good answer with these counts."""
    known: dict[str, Any] = {} if posted is not None else {"usage_is_known": False}
    return Case(name, (said(fed={**FED, **counts}),), posted=posted, anomalies=anomalies, **known)


FINE = said()

_ANSWERS = (
    Case("an answer", (FINE,)),
    Case("an ending in capitals", (said(why="DONE"),)),
    Case("text that reached its bound", (said(why="out of words", fed=FULL),), posted=FULL_COST),
    Case("an unasked trick beside the answer", (said(does=[CALL]),)),
    Case("an ending that is declared good", (said(why="hoarse"),), entry={"good_endings": ["hoarse"]}),
    Case("an answer to a schema in the prompt", (said('{"a": 1}'),), texts=('{"a": 1}',),
         request={"response_schema": SCHEMA}),
    Case("no usage", (said(fed=None),), posted=None, anomalies=MISSING, usage_is_known=False),
    Case("a usage in OpenAI's form", (said(fed=None, usage={"prompt_tokens": 11, "completion_tokens": 7}),)),
)  # fmt: skip

_NO_ANSWERS = (
    dead("nothing said", said(None, None, None), posted=None, attempts=2, code="invalid_response"),
    dead("nothing but an ending", said(None), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("nothing but a usage", said(None, None), code="empty_reply"),
    dead("no words", said(""), posted=2 * COST, attempts=2, code="empty_reply"),
    dead("covered", said("half", "covered"), code="content_filtered"),
    dead("an unknown ending", said(why="cat"), code="unknown_ending"),
    dead("no ending", said(why=None), code="unknown_ending", says="`null`"),
    dead("a trick that nobody offered", said(None, "does a trick", does=[CALL]), code="unknown_ending"),
    dead("a trick that reached its bound", said(None, "out of words", does=[CALL]), code="output_truncated",
         request=ADD),
    dead("the bound without a word", said(None, "out of words", FULL), posted=FULL_COST, code="output_truncated"),
    dead("too many values, and usage", Reply(raw=b'{"x":[' + b"0," * 10**6 + b'0],"fed":{"in":11,"out":7}}'),
         code="reply_too_large"),
)  # fmt: skip

_ERRORS = (
    *(
        dead(f"{kind}, {status}", squawk(kind, status), posted=0, code=code)
        for kind, code, own_status in (
            ("stranger", "authentication_failed", 401),
            ("nonsense", "bad_request", 400),
            ("unpaid", "insufficient_quota", 429),
        )
        for status in (200, own_status)
    ),
    Case("too fast, then fine", (squawk("too fast", 429), FINE), attempts=2),
    Case("too fast in a 200, then fine", (squawk("too fast"), FINE), attempts=2),
    dead("asleep", squawk("asleep", 503), posted=None, attempts=2, code="server_error"),
    dead("asleep in a 200", squawk("asleep"), posted=None, attempts=2, code="server_error"),
    dead("asleep, but fed", squawk("asleep", fed=FED), posted=2 * COST, attempts=2, code="server_error"),
    dead("too fast, beside half an answer", squawk("too fast", say="half"), posted=None, attempts=2,
         code="rate_limited"),
    dead("an unlisted kind", squawk("a cat"), posted=None, attempts=2, code="invalid_response"),
    dead("an unlisted kind with a status", squawk("a cat", 400), posted=0, code="bad_request"),
    dead("a squawk in words", Reply({"squawk": "no"}), posted=None, attempts=2, code="invalid_response"),
    dead("a context that is too long", Reply({"squawk": {"kind": "nonsense", "text": "over the context length"}}, 400),
         posted=0, code="context_length_exceeded"),
    dead("a gateway's error", Reply({"error": {"code": 502}}), posted=None, attempts=2, code="server_error"),
)  # fmt: skip

_USAGES = (
    with_fed("known is a part of in", 100_000 + 90_000 + 20_000, **{"in": 1000, "known": 900, "out": 10}),
    with_fed("more known than in", 11_000 + 1_200 + 14_000, *CONTRADICTORY, known=12),
    with_fed("above the bound", None, *IMPLAUSIBLE, out=101),
    with_fed("negative", None, *IMPLAUSIBLE, out=-1),
    with_fed("zeros", None, *ZERO, **{"in": 0, "out": 0}),
    with_fed("no out", None, *MISSING, out=None),
)  # fmt: skip

PARROT = (
    *(
        replace(case, name=f"Parrot: {case.name}", entry={**PRESET, **case.entry})
        for case in (*_ANSWERS, *_NO_ANSWERS, *_ERRORS, *_USAGES)
    ),
    *faults("Parrot", FINE, **PRESET),
)
