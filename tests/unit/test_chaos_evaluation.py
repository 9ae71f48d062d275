"""The evaluation of a chaos trial finds each violation, planted in correct observations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.evaluation import (
    CLOCKS_S,
    DELIVERIES_MAX,
    Arrival,
    Attempt,
    Batch,
    Observations,
    ProtocolUse,
    evaluate,
    links_owed,
)
from tests.chaos.limits import NO_LIMITS, TIGHT, LimitsSeen, LimitUse, Sent
from tests.chaos.mix import CHAT

TASK = "c1.1"
MESSAGES = "sim-messages"
UNLIMITED = LimitsSeen(NO_LIMITS, [], 0, 0, [])
QUIET = LimitsSeen(TIGHT, [], 0, waits=1, unblocked_at_s=[])
LIMITED = LimitsSeen(TIGHT, [Sent(10.0, is_refused=True)], 2, waits=1, unblocked_at_s=[])
RIGHT = Observations(
    batches=[
        Batch("d1", [(TASK, "succeeded"), (TASK, "succeeded")]),
        Batch("d2", [("c2.1", "rejected"), ("c4.1", "dead"), (TASK, "succeeded")]),
        Batch("", [("c2.1", "rejected")]),
    ],
    requests=[Arrival("a1", 10.0), Arrival("a2", 20.0), Arrival("a4", 20.0, provider=MESSAGES)],
    attempts=[
        Attempt("a1", "c1", 19.0),
        Attempt("a2", "c1"),
        Attempt("a3", "c2", 12.0),
        Attempt("a4", "c4", provider=MESSAGES),
    ],
    calls={TASK: "succeeded", "c2.1": "rejected", "c4.1": "dead"},
    calls_of={CHAT: 2, MESSAGES: 1},
    misposted={},
    overrun_nano_usd=0,
    drift_nano_usd=0,
    is_clean=True,
    unknown_below_hold=0,
    posted_again=0,
    unused_replies=0,
    delivered={("d1", "link"): 2, ("d2", "link"): 1, ("d2", "link_error"): 2},
    deliveries_max=DELIVERIES_MAX,
    unmarked_links=0,
    limits={CHAT: UNLIMITED, MESSAGES: UNLIMITED},
    recover_s=1.0,
)


def test_correct_observations_have_no_violation() -> None:
    """A repeat after an UNKNOWN, an attempt that was never sent and an exact fit are counted, but allowed."""
    evaluation = evaluate(RIGHT)

    assert evaluation.violations == ()
    assert (evaluation.accepted, evaluation.terminal) == (6, 6)
    assert (evaluation.lost, evaluation.calls) == (0, 3)
    assert (evaluation.requests, evaluation.never_sent) == (3, 1)
    assert (evaluation.unlogged, evaluation.shared) == (0, 0)
    assert (evaluation.duplicates, evaluation.duplicates_unknown) == (1, 1)
    assert (evaluation.links_delivered, evaluation.links_owed) == (3, 3)
    assert (evaluation.link_errors_delivered, evaluation.link_errors_owed) == (2, 2)
    assert evaluation.protocols == {
        CHAT: ProtocolUse(calls=2, requests=2, duplicates=1, limits=LimitUse()),
        MESSAGES: ProtocolUse(calls=1, requests=1, duplicates=0, limits=LimitUse()),
    }


def test_the_limits_of_all_protocols_are_summed() -> None:
    """What one had at one time is not added to that of another."""
    limits = {CHAT: replace(LIMITED, in_flight_max=3, waits=5), MESSAGES: LIMITED}

    summed = evaluate(replace(RIGHT, limits=limits)).limits

    assert (summed.refused, summed.waits, summed.in_flight_max) == (2, 6, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batches": []}, "nothing was accepted"),
        ({"batches": [Batch("", [(TASK, "lost")])]}, "1 submissions lost"),
        ({"batches": [Batch("", [("c9.1", "succeeded")])]}, "1 submissions lost"),
        ({"calls": {**RIGHT.calls, TASK: "waiting"}}, "1 calls still open"),
        ({"requests": [*RIGHT.requests, Arrival("a9", 1)]}, "1 provider requests without a row"),
        ({"requests": [*RIGHT.requests, Arrival(None, 1)]}, "1 provider requests without a row"),
        ({"requests": [*RIGHT.requests, Arrival("a2", 21)]}, "1 provider requests share a row"),
        (
            {"attempts": [Attempt("a1", "c1"), *RIGHT.attempts[1:]]},
            "1 duplicate requests without an UNKNOWN",
        ),
        ({"batches": [Batch("", [(TASK, "wrong")])]}, "1 results do not fit their requests"),
        ({"requests": RIGHT.requests[:2]}, "sim-messages: no request"),
        (
            {"attempts": [*RIGHT.attempts[:3], Attempt("a4", "c4")]},
            "1 provider requests are not in the protocol of their row",
        ),
        (
            {"misposted": {MESSAGES: 2}},
            "sim-messages: 2 attempts are not posted at the usage that the provider reported",
        ),
        (
            {"limits": {CHAT: UNLIMITED, MESSAGES: LIMITED}},
            "sim-messages: 1 requests were refused, and 0 came late",
        ),
        (
            {"limits": {CHAT: replace(QUIET, waits=0), MESSAGES: replace(QUIET, waits=0)}},
            "no call waited for a limit",
        ),
        ({"overrun_nano_usd": 1}, "a limit was exceeded by 1 nano-USD"),
        ({"drift_nano_usd": 1}, "audit drift 1 nano-USD"),
        ({"is_clean": False}, "the audit is not clean"),
        ({"unknown_below_hold": 1}, "1 UNKNOWN attempts are not posted at their hold"),
        ({"posted_again": 1}, "1 times an outcome was posted again"),
        ({"unused_replies": 1}, "1 attempts with a reply have not succeeded"),
        ({"delivered": {**RIGHT.delivered, ("d1", "link"): 1}}, "1 links never delivered"),
        (
            {"deliveries_max": DELIVERIES_MAX + 1},
            f"a link was delivered {DELIVERIES_MAX + 1} times",
        ),
        ({"unmarked_links": 1}, "1 links were never marked as delivered"),
        (
            {"delivered": {**RIGHT.delivered, ("d2", "link_error"): 1}},
            "1 error links never delivered",
        ),
        ({"recover_s": None}, "no recovery in time"),
    ],
)
def test_each_violation_is_reported(change: dict[str, Any], words: str) -> None:
    """One planted violation is reported as exactly one."""
    assert evaluate(replace(RIGHT, **change)).violations == (words,)


def test_an_error_link_is_not_replaced_by_other_links() -> None:
    """Neither by a link of a success nor by that of another document."""
    delivered = {
        ("d1", "link"): 3,
        ("d2", "link"): 2,
        ("d2", "link_error"): 1,
        ("d3", "link_error"): 1,
    }

    evaluation = evaluate(replace(RIGHT, delivered=delivered))

    assert (evaluation.links_delivered, evaluation.link_errors_delivered) == (3, 1)
    assert evaluation.violations == ("1 error links never delivered",)


def test_a_lost_submission_is_owed_no_link() -> None:
    """Its outcome is not known, so neither is the link."""
    batches = [Batch("d1", [(TASK, "lost"), (TASK, "succeeded")]), Batch("", [(TASK, "dead")])]

    assert links_owed(batches) == {("d1", "link"): 1}


@pytest.mark.parametrize(
    ("attempts", "excused"),
    [
        ([Attempt("a1", "c1", 19.0), Attempt("a2", "c1", 29.0), Attempt("a3", "c1")], 2),
        ([Attempt("a1", "c1", 20 + CLOCKS_S), Attempt("a2", "c1", 29.0), Attempt("a3", "c1")], 2),
        ([Attempt("a1", "c1", 20.2), Attempt("a2", "c1", 29.0), Attempt("a3", "c1")], 1),
        ([Attempt("a1", "c1", 19.0), Attempt("a2", "c1"), Attempt("a3", "c1", 31.0)], 1),
        ([Attempt("a1", "c1"), Attempt("a2", "c1", 29.0), Attempt("a3", "c1", 31.0)], 0),
    ],
)
def test_a_repeat_is_allowed_after_unknown_attempts_only(
    attempts: list[Attempt], excused: int
) -> None:
    """All earlier attempts must be UNKNOWN when the request arrives, not later."""
    requests = [Arrival("a3", 30.0), Arrival("a1", 10.0), Arrival("a2", 20.0)]

    evaluation = evaluate(replace(RIGHT, attempts=attempts, requests=requests))

    assert (evaluation.duplicates, evaluation.duplicates_unknown) == (2, excused)


def test_violations_of_a_fault_are_included() -> None:
    """A fault reports what only it can observe."""
    assert evaluate(RIGHT, ["the frozen worker did not continue"]).violations == (
        "the frozen worker did not continue",
    )
