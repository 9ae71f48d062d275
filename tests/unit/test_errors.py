"""Errors cross processes: each survives with its fields, and each has a code of its own."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.utils.serialization import get_pickleable_exception

import callgate
from callgate.domain import errors
from callgate.domain.budgets import BudgetRefusal, RefusalReason, Window
from callgate.domain.errors import (
    BUDGET_ERRORS,
    BudgetRefused,
    CallFailed,
    CallgateError,
    CallRejected,
    CountDiffers,
    OrganisationBusy,
    WaitTimeout,
)

REFUSAL = BudgetRefusal(RefusalReason.HELD, "acme", "org", Window.DAY, 100, 50, 20, 31)


def family(root: type[CallgateError]) -> Iterator[type[CallgateError]]:
    """An error class and everything below it."""
    yield root
    for child in root.__subclasses__():
        yield from family(child)


def made_in(folder: Path) -> Iterator[str]:
    """The names of classes and functions that the code of a folder calls."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id


CHECKOUT = Path(__file__).parents[2]
ALL = sorted(family(CallgateError), key=lambda cls: cls.__name__)
MADE = {name for folder in ("callgate", "worker", "config") for name in made_in(CHECKOUT / folder)}
INTERNAL = {
    "AmbiguousCall",
    "ChangedMeanwhile",
    "CheckerUnavailable",
    "CountDiffers",
    "InvalidAmount",
    "InvalidBills",
    "InvalidWords",
    "OrgNotFound",
    "OutputUnchecked",
    "RedriveNotFound",
    "RedriveRefused",
    "RedriveStateDiffers",
    "RowRefused",
    "SchemaTooCostly",
    "SecondPaymentNotAllowed",
    "TooManyRedrives",
    "UnknownTimeZone",
    "WebhookFailed",
}
"""What `submit`, `get` and the other methods of a client never raise."""


def an_error(cls: type[CallgateError]) -> CallgateError:
    """An instance with every field set."""
    if issubclass(cls, BudgetRefused):
        return cls(REFUSAL)
    if issubclass(cls, CallFailed):
        return cls("slow down", "rate_limited", 5)
    if issubclass(cls, CountDiffers):
        return cls(12, 13)
    if issubclass(cls, OrganisationBusy):
        return cls("acme", 100_000, 100_000)
    if issubclass(cls, CallRejected):
        return cls("by ann", "cancelled")
    return cls("what, with the numbers, and what to do")


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(cls: type[CallgateError]) -> None:
    """The same class, arguments, fields and text on the other side."""
    error = an_error(cls)

    again = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert type(again) is cls
    assert (again.args, vars(again), str(again)) == (error.args, vars(error), str(error))


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_is_rebuilt_from_its_arguments(cls: type[CallgateError]) -> None:
    """Celery sends class and args; the caller must find the class where it says it is."""
    error = an_error(cls)

    again = getattr(errors, cls.__name__)(*error.args)

    assert type(again) is type(get_pickleable_exception(error)) is cls
    assert (vars(again), str(again)) == (vars(error), str(error))


def test_codes_are_unique() -> None:
    """They are stored and alerted on: one code, one meaning."""
    codes = [cls.code for cls in ALL]

    assert len(codes) == len(set(codes))
    assert all("code" in vars(cls) for cls in ALL)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None

    assert [cls.__name__ for cls in ALL if cls.__name__ not in errors.__doc__] == []


def test_every_refusal_that_ends_a_call_has_its_error() -> None:
    """The reason a ledger gives is the class a caller catches."""
    assert set(BUDGET_ERRORS) == set(RefusalReason)
    for reason, cls in BUDGET_ERRORS.items():
        assert issubclass(cls, BudgetRefused)
        assert cls.code in (f"budget_{reason.value}", reason.value)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_is_raised_somewhere(cls: type[CallgateError]) -> None:
    """A class that nobody makes misleads the caller who catches it. Roots are caught for their subclasses."""
    is_root = bool(cls.__subclasses__())

    assert is_root or cls.__name__ in MADE or cls in BUDGET_ERRORS.values()


def test_the_package_exports_what_a_caller_catches() -> None:
    """Only the command line and the workers meet the others."""
    exported = {cls for cls in ALL if cls.__name__ in callgate.__all__}

    assert all(getattr(callgate, cls.__name__) is cls for cls in exported)
    assert {cls.__name__ for cls in set(ALL) - exported} == INTERNAL


@pytest.mark.parametrize("module", ["callgate", "callgate.domain.errors"])
@pytest.mark.parametrize(
    ("old", "answer"),
    [
        ("NoBudget", "is now BudgetNotConfigured"),
        ("BudgetNeverFits", "is now BudgetTooSmall"),
    ],
)
def test_an_old_name_answers_with_what_became_of_it(module: str, old: str, answer: str) -> None:
    """For one release, in the form in which programs import errors."""
    with pytest.raises(ImportError, match=f"{old} {answer}"):
        exec(f"from {module} import {old}")  # noqa: S102 - the statement is the test's own


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    """`hasattr` and `from` imports depend on it."""
    assert not hasattr(errors, "NoSuchError")


def test_a_refused_budget_tells_the_refusal() -> None:
    """All numbers, and the value itself."""
    error = BudgetRefused(REFUSAL)

    assert error.refusal == REFUSAL
    assert str(error) == str(REFUSAL)


def test_a_failed_call_says_why_and_after_how_many_attempts() -> None:
    """Code first."""
    error = CallFailed("slow down", "rate_limited", 5)

    assert str(error) == "rate_limited after 5 attempt(s): slow down"
    assert str(CallRejected("by ann", "cancelled")) == "cancelled: by ann"


def test_waiting_too_long_is_a_timeout() -> None:
    """Code that catches Python's own TimeoutError catches it."""
    assert issubclass(WaitTimeout, TimeoutError)
