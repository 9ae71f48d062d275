"""The doctor's findings as values: what is fine, what is a warning, what fails, and what then is not asked."""

from __future__ import annotations

from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable
from callgate.services.doctor import Check, Finding, FindingStatus, Seen, run_checks


def failing(error: Exception) -> str:
    raise error


def test_a_finding_is_a_name_a_status_and_a_sentence() -> None:
    """What a check says is fine, unless it says that it is a warning."""
    findings = list(
        run_checks(
            [
                Check("settings", lambda: "valid"),
                Check("item size", lambda: Seen("too large", is_warning=True)),
                Check("locks", lambda: None),
                Check("breakers", lambda: Seen("none is open")),
            ]
        )
    )

    assert findings == [
        Finding("settings", FindingStatus.OK, "valid"),
        Finding("item size", FindingStatus.WARN, "too large"),
        Finding("breakers", FindingStatus.OK, "none is open"),
    ]


def test_a_failure_hides_only_what_needs_it() -> None:
    """Every other check still says what it finds."""
    findings = list(
        run_checks(
            [
                Check("broker", lambda: failing(BrokerUnavailable("away"))),
                Check("rights", lambda: failing(AssertionError("asked")), needs="broker"),
                Check("price", lambda: "known"),
            ]
        )
    )

    assert findings == [
        Finding("broker", FindingStatus.FAIL, "away"),
        Finding("price", FindingStatus.OK, "known"),
    ]


def test_a_ledger_that_is_away_comes_with_a_remedy() -> None:
    """The setting to check, and the server."""
    (finding,) = run_checks([Check("database", lambda: failing(LedgerUnavailable("refused")))])

    assert finding.status is FindingStatus.FAIL
    assert finding.sentence.startswith("refused: check CALLGATE_DATABASE_URL")
