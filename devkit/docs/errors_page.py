"""The page of errors and failure codes, from the classes and the table of remedies."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import callgate
from callgate.domain import errors
from callgate.domain.errors import CallgateError
from callgate.domain.next_steps import NEXT_BY_STATE, NEXT_BY_WAIT
from callgate.domain.remedies import REMEDIES, remedy_of

INTRODUCTION = """\
# Errors and failure codes

## Errors

Every error has a `code`, which programs may store and alert on. Messages never hold the text of a prompt or a secret.
Indentation shows what is a kind of what: catching `BudgetRefused` catches the five below it. Those with a ✓ can be
imported from `callgate`: a pipeline catches these. The others are for operators and for callgate itself.

| error | code | from `callgate` | meaning |
|---|---|---|---|
"""
CODES = """
## Failure codes

`CallFailed.failure_code`, `CallRejected.reason_code`, `callgate calls show`, dead letters and log lines name a code:
why an attempt failed, why a call waits, or why it was refused. NAMES in capitals stand for your own.

| code | what to do |
|---|---|
"""
STATES = """
## States of a call

| state | what comes next by itself |
|---|---|
"""
WAITS = """
## Why a call waits

| wait reason | what comes next by itself |
|---|---|
"""
END = "\nThis page is written from `callgate/domain/errors.py` and `remedies.py` by `make pages`.\n"


def page() -> str:
    """The whole page."""
    codes = (f"| `{code}` | {remedy_of(code)} |\n" for code in sorted(REMEDIES))
    states = (f"| `{state.value}` | {text} |\n" for state, text in NEXT_BY_STATE.items())
    waits = (f"| `{reason.value}` | {text} |\n" for reason, text in NEXT_BY_WAIT.items())
    return "".join(
        [INTRODUCTION, *_rows(CallgateError, 0), CODES, *codes, STATES, *states, WAITS, *waits, END]
    )


def _rows(error: type[CallgateError], depth: int) -> Iterator[str]:
    """An error and its kinds, in the order of the source."""
    indent = "&emsp;" * depth
    mark = "✓" if error.__name__ in callgate.__all__ else ""
    yield f"| {indent}`{error.__name__}` | `{error.code}` | {mark} | {inspect.getdoc(error)} |\n"
    for kind in error.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from _rows(kind, depth + 1)
