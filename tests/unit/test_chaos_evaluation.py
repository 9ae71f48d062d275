"""The judgement of a chaos trial sees what it is there to see: each kind of wrong, planted in right evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.evaluation import (
    CLOCKS_S,
    TELLINGS_MAX,
    Arrival,
    Attempt,
    Batch,
    Evidence,
    judge,
    links_owed,
)

TASK = "c1.1"
RIGHT = Evidence(
    batches=[
        Batch("d1", [(TASK, "succeeded"), (TASK, "succeeded")]),
        Batch("d2", [("c2.1", "rejected"), ("c4.1", "dead"), (TASK, "succeeded")]),
        Batch("", [("c2.1", "rejected")]),
    ],
    requests=[Arrival("a1", 10.0), Arrival("a2", 20.0)],
    attempts=[Attempt("a1", "c1", 19.0), Attempt("a2", "c1"), Attempt("a3", "c2", 12.0)],
    calls={TASK: "succeeded", "c2.1": "rejected", "c4.1": "dead"},
    overrun_nano_usd=0,
    drift_nano_usd=0,
    is_clean=True,
    unknown_below_hold=0,
    posted_again=0,
    unheeded=0,
    told={("d1", "link"): 2, ("d2", "link"): 1, ("d2", "link_error"): 2},
    tellings_max=TELLINGS_MAX,
    unmarked=0,
    recover_s=1.0,
)


def test_what_is_right_is_called_right() -> None:
    """A repeat after an UNKNOWN, a row that was never sent and an exact fit are no violations; all are counted."""
    verdict = judge(RIGHT)

    assert verdict.violations == ()
    assert (verdict.accepted, verdict.terminal, verdict.lost, verdict.calls) == (6, 6, 0, 3)
    assert (verdict.requests, verdict.never_sent, verdict.unlogged, verdict.shared) == (2, 1, 0, 0)
    assert (verdict.duplicates, verdict.duplicates_unknown) == (1, 1)
    assert (verdict.links_told, verdict.links_owed) == (3, 3)
    assert (verdict.link_errors_told, verdict.link_errors_owed) == (2, 2)


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
        ({"overrun_nano_usd": 1}, "a limit was passed by 1 nano-USD"),
        ({"drift_nano_usd": 1}, "audit drift 1 nano-USD"),
        ({"is_clean": False}, "the audit is not clean"),
        ({"unknown_below_hold": 1}, "1 UNKNOWN attempts are not posted at their hold"),
        ({"posted_again": 1}, "1 times an outcome was posted again"),
        ({"unheeded": 1}, "1 replies are not called a success"),
        ({"told": {**RIGHT.told, ("d1", "link"): 1}}, "1 links never told"),
        ({"tellings_max": TELLINGS_MAX + 1}, f"a link was told {TELLINGS_MAX + 1} times"),
        ({"unmarked": 1}, "1 links would be told for ever"),
        ({"told": {**RIGHT.told, ("d2", "link_error"): 1}}, "1 error links never told"),
        ({"recover_s": None}, "no recovery within the bound"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], words: str) -> None:
    """One wrong, one complaint."""
    assert judge(replace(RIGHT, **change)).violations == (words,)


def test_a_failure_told_by_the_link_of_successes_is_not_told() -> None:
    """Each link has a task of its own, and one document's message makes up for no other's."""
    told = {("d1", "link"): 3, ("d2", "link"): 2, ("d2", "link_error"): 1, ("d3", "link_error"): 1}

    verdict = judge(replace(RIGHT, told=told))

    assert (verdict.links_told, verdict.link_errors_told) == (3, 1)
    assert verdict.violations == ("1 error links never told",)


def test_only_what_has_ended_is_owed_a_link() -> None:
    """Of a submission that is lost nobody knows which."""
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
def test_a_repeat_needs_an_unknown_before_it_not_after(
    attempts: list[Attempt], excused: int
) -> None:
    """Only what all attempts before had become when a request arrived can excuse it."""
    requests = [Arrival("a3", 30.0), Arrival("a1", 10.0), Arrival("a2", 20.0)]

    verdict = judge(replace(RIGHT, attempts=attempts, requests=requests))

    assert (verdict.duplicates, verdict.duplicates_unknown) == (2, excused)


def test_complaints_of_a_trial_are_violations() -> None:
    """What a trial found wrong in its own way counts like everything else."""
    assert judge(RIGHT, ["the zombie did not come back"]).violations == (
        "the zombie did not come back",
    )
