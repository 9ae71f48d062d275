"""`callgate retention purge`: what goes, and what stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.domain.calls import CallKey
from tests.support.command_line import Shell, a_request


def test_a_purge_asks_first_and_says_what_it_did(
    shell: Shell, dead: CallKey, ledger: MemoryLedger
) -> None:
    """A dry run counts; nobody to ask is no yes; then bodies are gone and figures stay."""
    erase = ("retention", "purge", "--org", "acme", "--older-than-days", "0")

    code, out, _ = shell(*erase, "--dry-run", "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "dry_run": True, "calls": 1, "dead_letters": 1, "unprocessable_messages": 0, "open_calls_spared": 0,
            "is_complete": True, "calls_with_bodies": 1,
        },
    )  # fmt: skip
    code, _, err = shell(*erase)
    assert (code, "--yes" in err) == (2, True)
    assert ledger.tables.calls[dead].request is not None
    assert "purged" not in shell("calls", "show", dead.task_id)[1]

    code, out, _ = shell(*erase, "--yes", "--json")
    assert (code, json.loads(out)["calls"]) == (0, 1)
    assert ledger.tables.calls[dead].request is None
    assert ["bodies", "purged"] in [
        line.split() for line in shell("calls", "show", dead.task_id, "--bodies")[1].splitlines()
    ]
    code, _, err = shell(*erase, "--yes")
    assert (code, err.startswith("nothing is old enough")) == (1, True)


def test_a_purge_tells_dead_letters_apart(shell: Shell, open_client: Any, dead: CallKey) -> None:
    """Without its request none can be redriven, so the operator is told before."""
    with open_client() as client:
        client.cancel(client.submit(a_request("another")).task_id, "by a test")
    erase = ("retention", "purge", "--org", "acme", "--older-than-days", "0")

    said = shell(*erase, "--dry-run")[2]
    told = json.loads(shell(*erase, "--yes", "--json")[1])

    assert said == "would purge: 2 calls, 1 of them dead letters, which cannot be redriven then\n"
    assert (told["calls"], told["dead_letters"]) == (2, 1)


def test_a_purge_names_the_open_calls_it_spared(shell: Shell, open_client: Any) -> None:
    """They cannot be erased while they run."""
    with open_client() as client:
        client.submit(a_request())

    code, _, err = shell("retention", "purge", "--org", "acme", "--older-than-days", "0", "--yes")

    assert code == 1
    assert "nothing is old enough" in err
    assert "spared: 1 open calls" in err


def test_a_purge_counts_the_ended_calls_that_it_left(
    shell: Shell, dead: CallKey, ledger: MemoryLedger
) -> None:
    """A call with a link to deliver keeps its bodies; the operator who must erase them has to know."""
    ledger.tables.calls[dead].due_at = datetime.now(UTC)
    erase = ("retention", "purge", "--org", "acme", "--yes", "--older-than-days")

    code, _, err = shell(*erase, "0")
    json_code, as_json, _ = shell(*erase, "0", "--json")

    assert (code, json_code) == (1, 1)
    assert "left: 1 ended calls still have their bodies" in err
    assert (json.loads(as_json)["calls_with_bodies"], json.loads(as_json)["is_complete"]) == (
        1,
        False,
    )
    # What is younger was not asked for: nothing is left, and nothing was found.
    code, as_json, _ = shell(*erase, "1", "--json")
    assert (code, json.loads(as_json)["calls_with_bodies"], json.loads(as_json)["is_complete"]) == (
        1,
        1,
        True,
    )


def test_a_purge_of_an_unknown_organisation_is_an_error(shell: Shell, dead: CallKey) -> None:
    """After a misspelling the operator would believe that the bodies were removed."""
    for mode in (("--dry-run",), ("--yes",), ("--yes", "--json")):
        code, out, err = shell(
            "retention", "purge", "--org", "acmee", "--older-than-days", "0", *mode
        )

        assert (code, bool(out)) == (1, "--json" in mode)
        assert err.startswith("error: org_not_found: ")
        assert "acmee" in err


def test_a_purge_without_any_age_is_refused(shell: Shell, dead: CallKey) -> None:
    """Neither the command nor the catalogue says how old is too old."""
    code, _, err = shell("retention", "purge", "--yes")

    assert code == 2
    assert "--older-than-days" in err
