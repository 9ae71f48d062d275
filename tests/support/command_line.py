"""What tests of the command line share: calls in a memory ledger, and what a command printed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from datetime import datetime
from io import StringIO
from typing import Any

from pydantic import SecretStr

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli import run
from callgate.client import Client
from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState
from callgate.domain.catalogue import Catalogue
from callgate.domain.delivery import Delivery, Published
from callgate.domain.ledger import RecordAnswer, Reserve, Reserved, Settle
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Message, Usage
from callgate.settings import ClientSettings
from tests.support.ledger_under_test import LedgerUnderTest, a_loss

HOSTILE = "\x1b[2J \x1b]52;c;cm0gLXJm\x07 \x7f \x9b31m \u202e fdp \u2066 \ud800"
"""Clears the screen, fills the clipboard, deletes, colours, reverses text; ends with a lone surrogate."""
ANSWER = "Gr\u00fc\u00dfe\t\u200d\nund \x1b[2J \x9b31m\r\ud800"
FAILURE = Failure("bad_request", "no such model\nreally", False, Billing.UNBILLED, status=400)
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
Shell = Callable[..., tuple[int, str, str]]


def fields_of(shown: str) -> dict[str, str]:
    """The fields that a command printed, by label."""
    return {
        name.strip(): value.strip()
        for name, _, value in (line.partition("  ") for line in shown.splitlines())
    }


def answer_of(open_client: Callable[[], Client], *words: str, codes: Sequence[int] = (0,)) -> Any:
    """Run one command line in this process, against what a client is opened on; return the JSON it printed."""
    with redirect_stdout(StringIO()) as out:
        code = run([*words, "--json"], open_client)
    assert code in codes, out.getvalue()
    return json.loads(out.getvalue())


class SilentQueue:
    """`QueuePort` that publishes nothing."""

    def publish_calls(
        self, keys: Sequence[CallKey], lane: Lane = Lane.CALL, *, traceparent: str | None = None
    ) -> None: ...
    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None: ...
    def publish_sweep(self, sent_at: datetime) -> None: ...
    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        return [Published(d.submission_id) for d in deliveries]


def a_request(content: str = "secret text") -> LLMRequest:
    """A request of acme."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=(Message(role="user", content=content),),
        max_output_tokens=100,
    )


def a_dead_call(
    ledger: MemoryLedger, open_client: Callable[[], Client], content: str = "secret text"
) -> CallKey:
    """Submit a call, and have it fail for good."""
    with open_client() as client:
        key = client.submit(a_request(content), force=True).key
    ref = reserve(ledger, key)
    ledger.record([RecordAnswer(ref, None, FAILURE.to_json(), 5)])
    ledger.settle(
        [
            Settle(
                ref,
                AttemptStatus.ANSWERED,
                AttemptStatus.FAILED,
                0,
                CallState.DEAD,
                error=FAILURE.to_json(),
                error_fingerprint=FAILURE.fingerprint("openai"),
            )
        ]
    )
    return key


def reserve(ledger: MemoryLedger, key: CallKey) -> AttemptRef:
    """Claim a call for a worker."""
    claim = Reserve(key, 100, 60.0, "worker:1", "list", default_limit_nano_usd=NANO_PER_USD)
    (reserved,) = ledger.reserve([claim])
    assert isinstance(reserved, Reserved)
    return reserved.ref


def an_answered_call(
    ledger: MemoryLedger, open_client: Callable[[], Client], answer: str
) -> CallKey:
    """Submit a call, and have it succeed with an answer."""
    with open_client() as client:
        key = client.submit(a_request()).key
    ref = reserve(ledger, key)
    usage = Usage(input_tokens=5, output_tokens=5)
    reply = ProviderReply((answer,), "stop", None, usage, None, "gpt-4o-mini", None)
    ledger.record([RecordAnswer(ref, reply.to_json(), None, 5)])
    settle = Settle(
        ref, AttemptStatus.ANSWERED, AttemptStatus.SUCCEEDED, 0, CallState.SUCCEEDED, usage=usage
    )
    ledger.settle([settle])
    return key


def control_chars_in(text: str) -> set[str]:
    """The characters of a text that would control a terminal, without line ends."""
    found = {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    return (found | {c for c in text if unicodedata.bidirectional(c) in BIDI}) - {"\n"}


def state_of(ledger: MemoryLedger, key: CallKey) -> CallState:
    """The state of a call."""
    (view,) = ledger.read([key])
    assert view is not None
    return view.state


def client_maker(ledger: MemoryLedger, catalogue: Catalogue | None = None) -> Callable[[], Client]:
    """Makes clients of a memory ledger; they need neither Postgres nor a broker."""

    def open_client() -> Client:
        settings = ClientSettings(
            database_url=SecretStr("postgresql+psycopg2://nobody@127.0.0.1:1/none"),
            broker_url=SecretStr("redis://127.0.0.1:1/0"),
            broker_timeout_s=0.2,
        )
        return Client(
            settings,
            ledger=ledger,
            operations=ledger,
            queue=SilentQueue(),
            retention=ledger,
            ended=ledger.ended_calls,
            redrives=ledger.redrives,
            catalogue=catalogue,
        )

    return open_client


def given_up(ledger: LedgerUnderTest, content: str = "invoice", **changes: Any) -> AttemptRef:
    """An attempt whose worker was lost, and whose bill is unknown."""
    ref = ledger.running(content, **changes)
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    return ref


def settled(ledger: LedgerUnderTest, ref: AttemptRef) -> int | None:
    """What an attempt posts, if it was settled by hand."""
    bill = ledger.operations.bills([ref.attempt_id])[ref.attempt_id]
    return bill.posted_nano_usd if bill.settled_by_hand_at else None
