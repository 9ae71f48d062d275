"""The doctor's findings as values: what is fine, what is a warning, what fails, and what then is not asked."""

from __future__ import annotations

import pytest

from callgate.cli.doctor import exit_code
from callgate.domain.doctor_checks import CHECKS, todo_of
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable, NotPermitted
from callgate.services.doctor import (
    CHECKS_MAX_S,
    NAMED_MAX,
    NOT_FOR_THIS_LOGIN,
    Check,
    Finding,
    FindingStatus,
    Seen,
    failure,
    named,
    run_checks,
    warning,
)
from tests.support import doctor_page

OK, WARN, FAIL = FindingStatus


def failing(error: Exception) -> str:
    raise error


def test_a_finding_is_a_name_a_status_and_a_sentence() -> None:
    """What a check says is fine, unless it says that it is a warning or a failure."""
    findings = list(
        run_checks(
            [
                Check("settings", lambda: "valid"),
                Check("item size", lambda: warning("too large", "Set it.")),
                Check("locks", lambda: None),
                Check("keys", lambda: failure("none", "Give one.")),
                Check("breakers", lambda: Seen("none is open", todo="never said")),
            ]
        )
    )

    assert findings == [
        Finding("settings", OK, "valid"),
        Finding("item size", WARN, "too large", "Set it."),
        Finding("keys", FAIL, "none", "Give one."),
        Finding("breakers", OK, "none is open"),
    ]


def test_a_failure_hides_only_what_needs_it() -> None:
    """Every other check still says what it finds."""
    findings = list(
        run_checks(
            [
                Check("broker", lambda: failing(BrokerUnavailable("away"))),
                Check("rights", lambda: failing(AssertionError("asked")), needs="broker"),
                Check("keys", lambda: failure("none")),
                Check("key of p", lambda: failing(AssertionError("asked")), needs="keys"),
                Check("price", lambda: "known"),
            ]
        )
    )

    assert [(f.name, f.status) for f in findings] == [
        ("broker", FAIL),
        ("keys", FAIL),
        ("price", OK),
    ]


def test_what_is_amiss_comes_with_what_to_do() -> None:
    """By default in the words of the table."""
    database, key = run_checks(
        [
            Check("database", lambda: failing(LedgerUnavailable("refused"))),
            Check("key of groq", lambda: warning("away")),
        ]
    )

    assert database.sentence == "refused"
    assert database.todo.startswith("Check CALLGATE_DATABASE_URL")
    assert key.todo == todo_of("key of PROVIDER") != ""


def test_every_check_of_the_table_says_what_to_do_in_sentences() -> None:
    for entry in CHECKS:
        assert entry.todo.endswith(".")
        assert entry.meaning.endswith(".")
    assert len({entry.name for entry in CHECKS}) == len(CHECKS)


def test_what_a_login_may_not_see_is_not_amiss() -> None:
    """Unless it is the check whether the login can do anything."""
    refused = NotPermitted("Postgres refused")
    hidden, schema = run_checks(
        [
            Check("breakers", lambda: failing(refused), may_be_hidden=True),
            Check("schema", lambda: failing(refused)),
        ]
    )

    assert (hidden.status, hidden.sentence) == (OK, NOT_FOR_THIS_LOGIN)
    assert (schema.status, schema.sentence) == (FAIL, "Postgres refused")


def test_a_fault_of_a_check_hides_no_other_one_and_quotes_nothing() -> None:
    broken, after = run_checks(
        [Check("tables", lambda: failing(ValueError("secret"))), Check("price", lambda: "known")]
    )

    assert (broken.status, after.status) == (FAIL, OK)
    assert broken.sentence == "the check itself failed: ValueError"


def test_after_a_minute_no_other_check_begins() -> None:
    times = iter([0.0, CHECKS_MAX_S + 1])
    first, late = run_checks(
        [Check("a", lambda: "fine"), Check("b", lambda: failing(AssertionError("asked")))],
        elapsed_s=lambda: next(times),
    )

    assert (first.status, late.status) == (OK, WARN)
    assert late.sentence == "not looked at: the checks before it took 61 s"


def test_a_finding_names_a_few_things() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named(list("abcdefgh")) == f"a, b, c, d, e and {8 - NAMED_MAX} more"


@pytest.mark.parametrize(
    ("statuses", "code", "strict_code"),
    [
        ([OK, OK], 0, 0),
        ([OK, WARN], 0, 3),
        ([OK, WARN, FAIL], 1, 1),
        ([FAIL], 2, 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_finding(
    statuses: list[FindingStatus], code: int, strict_code: int
) -> None:
    """The first finding is the one about the settings."""
    findings = [Finding("x", status, "") for status in statuses]

    assert exit_code(findings, is_strict=False) == code
    assert exit_code(findings, is_strict=True) == strict_code


def test_the_page_is_written_from_the_table() -> None:
    written = doctor_page.PAGE.read_text("utf-8")

    assert written == doctor_page.page(), "run python -m tests.support.doctor_page"
