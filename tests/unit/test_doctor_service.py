"""The doctor's checks as values: what is fine, what is a warning, what fails, and what then is not asked."""

from __future__ import annotations

from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable
from callgate.services.doctor import Check, CheckStatus, Probe, Seen, run_probes


def failing(error: Exception) -> str:
    raise error


def test_a_check_is_a_name_a_status_and_a_sentence() -> None:
    """What a probe says is fine, unless it says that it is a warning."""
    checks = list(
        run_probes(
            [
                Probe("settings", lambda: "valid"),
                Probe("item size", lambda: Seen("too large", is_warning=True)),
                Probe("locks", lambda: None),
                Probe("breakers", lambda: Seen("none is open")),
            ]
        )
    )

    assert checks == [
        Check("settings", CheckStatus.OK, "valid"),
        Check("item size", CheckStatus.WARN, "too large"),
        Check("breakers", CheckStatus.OK, "none is open"),
    ]


def test_a_failure_hides_only_what_needs_it() -> None:
    """Every other check still says what it finds."""
    checks = list(
        run_probes(
            [
                Probe("broker", lambda: failing(BrokerUnavailable("away"))),
                Probe("rights", lambda: failing(AssertionError("asked")), needs="broker"),
                Probe("price", lambda: "known"),
            ]
        )
    )

    assert checks == [
        Check("broker", CheckStatus.FAIL, "away"),
        Check("price", CheckStatus.OK, "known"),
    ]


def test_a_ledger_that_is_away_comes_with_a_remedy() -> None:
    """The setting to check, and the server."""
    (check,) = run_probes([Probe("database", lambda: failing(LedgerUnavailable("refused")))])

    assert check.status is CheckStatus.FAIL
    assert check.sentence.startswith("refused: check CALLGATE_DATABASE_URL")
