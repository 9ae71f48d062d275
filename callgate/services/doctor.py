"""
Check whether everything is there that a call needs, and whether something waits for an operator.

A check returns what it saw. A finding is its name, how bad it is, one sentence, and one sentence that says what to do.
This module runs checks. Those of the ledger are in `ledger_checks` and `figure_checks`, those of workers and keys in
`fingerprints` and `providers`, those of servers, files and variables in the adapters. `callgate.domain.doctor_checks`
describes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from callgate.domain.catalogue import Catalogue
from callgate.domain.doctor_checks import todo_of
from callgate.domain.errors import (
    CallgateError,
    InvalidRequest,
    NotPermitted,
    UnknownProvider,
)
from callgate.domain.ports import CostCalculatorPort
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest, Message

SAMPLE_MODEL = "openai/gpt-4o-mini"
SAMPLE_TOKENS = 1_000
NO_MODEL = "the catalogue names no model: give --model PROVIDER/MODEL"
NOT_FOR_THIS_LOGIN = "this login may not see them"
NAMED_MAX = 5
"""Things that one finding names; of further ones only the number is said."""
CHECKS_MAX_S = 60.0
"""A check that would begin later is not made. Each one has a bound of its own, mostly the timeout of its service."""


class FindingStatus(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Calls run, but an operator should look at this."""
    FAIL = "fail"
    """Calls do not run, or money may be counted wrongly."""


SEVERITY = (FindingStatus.OK, FindingStatus.WARN, FindingStatus.FAIL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    name: str
    status: FindingStatus
    sentence: str
    todo: str = ""
    """What to do; empty if nothing is amiss."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check found."""

    sentence: str
    status: FindingStatus = FindingStatus.OK
    todo: str | None = None
    """None: what the table of checks says."""


def warning(sentence: str, todo: str | None = None) -> Seen:
    """Something that an operator should look at."""
    return Seen(sentence, FindingStatus.WARN, todo)


def failure(sentence: str, todo: str | None = None) -> Seen:
    """Something without which no call runs."""
    return Seen(sentence, FindingStatus.FAIL, todo)


def named(things: Sequence[str]) -> str:
    """The first `NAMED_MAX` things, and how many more there are."""
    more = len(things) - NAMED_MAX
    return ", ".join(things[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Check:
    """Looks at one thing."""

    name: str
    look: Callable[[], str | Seen | None]
    """Says what it found; None if there is nothing to say yet. Raises a `CallgateError` if no call can run."""
    needs: str | None = None
    """The name of the check that must not have failed before this one runs."""
    may_be_hidden: bool = False
    """Nothing is amiss if this login may not see it."""


def run_checks(
    checks: Sequence[Check], *, elapsed_s: Callable[[], float] = lambda: 0.0
) -> Iterator[Finding]:
    """
    Run checks in their order. A failure skips only the checks that need it.

    Args:
        elapsed_s: Seconds since the first check began. After `CHECKS_MAX_S` no other one begins.
    """
    failed: set[str] = set()
    for check in checks:
        if check.needs in failed:
            continue
        late_s = elapsed_s()
        seen = _too_late(late_s) if late_s > CHECKS_MAX_S else _seen(check)
        if seen is None:
            continue
        if seen.status is FindingStatus.FAIL:
            failed.add(check.name)
        yield _finding(check.name, seen)


def _seen(check: Check) -> Seen | None:
    try:
        seen = check.look()
    except NotPermitted as exc:
        return Seen(NOT_FOR_THIS_LOGIN) if check.may_be_hidden else failure(str(exc))
    except CallgateError as exc:
        return failure(str(exc))
    except Exception as exc:
        # A doctor that ends with a traceback hides what its other checks found.
        return failure(
            f"the check itself failed: {type(exc).__name__}",
            "Report it, with the command's version.",
        )
    return Seen(seen) if isinstance(seen, str) else seen


def _too_late(late_s: float) -> Seen:
    return warning(
        f"not looked at: the checks before it took {late_s:.0f} s",
        "Repair what is slow or away, and run the doctor again.",
    )


def _finding(name: str, seen: Seen) -> Finding:
    if seen.status is FindingStatus.OK:
        return Finding(name, seen.status, seen.sentence)
    todo = todo_of(name) if seen.todo is None else seen.todo
    return Finding(name, seen.status, seen.sentence, todo)


def failed_check(name: str, why: CallgateError) -> Check:
    """A check that cannot be made, for that reason."""

    def look() -> str:
        raise why

    return Check(name, look)


def catalogue_check(file: Path | None, catalogue: Catalogue) -> Check:
    """Names the catalogue's file and its providers."""
    source = file or "the defaults (CALLGATE_CATALOGUE is not set)"
    return Check(
        "catalogue", lambda: f"{source}; providers: {', '.join(sorted(catalogue.providers))}"
    )


def model_checks(
    catalogue: Catalogue,
    model: str | None,
    *,
    input_bound: Callable[[LLMRequest], TokenBound],
    costs: CostCalculatorPort,
    now: datetime,
) -> list[Check]:
    """Checks of one model: how its tokens are counted, and its price."""
    name = model or _known_model(catalogue)
    if name is None:
        return [Check("price", lambda: NO_MODEL)]

    def tokenizer() -> str:
        return f"{name}: {input_bound(_sample(catalogue, name)).method}"

    def price() -> str:
        priced = costs.worst_case(_sample(catalogue, name), SAMPLE_TOKENS, now)
        return f"{name}: {priced.price_source}"

    return [Check("tokenizer", tokenizer), Check("price", price)]


def _known_model(catalogue: Catalogue) -> str | None:
    """A model that the catalogue names, or the sample of OpenAI; None if it has neither."""
    rows = [f"{row.provider}/{row.model}" for row in catalogue.prices]
    named = [f"{name}/{m}" for name, entry in catalogue.providers.items() for m in entry.models]
    known = (m for m in (SAMPLE_MODEL, *rows, *named) if m.partition("/")[0] in catalogue.providers)
    return next(known, None)


def _sample(catalogue: Catalogue, model: str) -> LLMRequest:
    provider, slash, name = model.partition("/")
    if not slash:
        raise InvalidRequest(f"{model!r} is not PROVIDER/MODEL")
    if provider not in catalogue.providers:
        raise UnknownProvider(
            f"the catalogue has no provider {provider!r}: give --model PROVIDER/MODEL of a provider it has, or add a"
            f" table [providers.{provider}]"
        )
    try:
        return LLMRequest(
            org_id="doctor",
            call_type="doctor",
            provider=provider,
            model=name,
            messages=(Message(role="user", content="Hello"),),
            max_output_tokens=SAMPLE_TOKENS,
        )
    except ValueError as exc:
        raise InvalidRequest(f"{name!r} cannot be the name of a model") from exc
