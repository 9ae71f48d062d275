"""Workers that differ are seen: in what, and which ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import structlog

from callgate.adapters.postgres.version import SCHEMA_REVISION, require_schema
from callgate.domain.errors import NotMigrated
from callgate.domain.fingerprints import (
    NO_SECTIONS,
    ExpiredLease,
    Fingerprint,
    LiveWorker,
    differing,
    differing_sections,
    digest_of,
    digests_of,
)
from callgate.services.fingerprints import COMPARE_INTERVAL_S, FingerprintKeeper
from tests.support.service_world import ManualClock

OURS = Fingerprint("0.2.0", "0002", "settings", "catalogue")
OTHER = replace(OURS, catalogue="another")
AT = datetime(2026, 11, 1, tzinfo=UTC)
OF_A_CATALOGUE = """
from callgate.domain.catalogue import Catalogue
from callgate.domain.fingerprints import digest_of
print(digest_of(Catalogue().model_dump()), digest_of({"b": {3, 1, "x", "y"}, "a": (1, None)}))
"""


def live(name: str, fingerprint: Fingerprint | None = OURS) -> LiveWorker:
    return LiveWorker(name, AT, fingerprint)


class Fingerprints:
    """`FingerprintPort` in memory."""

    def __init__(self) -> None:
        self.alive = [live("us")]
        self.published: list[str] = []

    def publish(
        self, worker_id: str, fingerprint: Fingerprint, sections: Mapping[str, str] = NO_SECTIONS
    ) -> None:
        self.published.append(worker_id)

    def workers(self) -> list[LiveWorker]:
        return self.alive

    def expired(self) -> list[ExpiredLease]:
        return []


def a_keeper(
    port: Fingerprints, clock: ManualClock, epochs: list[object | None]
) -> FingerprintKeeper:
    return FingerprintKeeper(
        fingerprints=port,
        own=OURS,
        worker_id="us",
        lease_epoch=lambda: epochs[0],
        clock=clock,
    )


def test_a_digest_is_the_same_in_every_process() -> None:
    """Sets have another order in each."""
    runs = {
        subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-c", OF_A_CATALOGUE], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    }

    assert len(runs) == 1
    assert digest_of({"a": {1, 2}}) == digest_of({"a": [1, 2]}) != digest_of({"a": [1, 3]})


def test_what_differs_is_named_with_the_workers() -> None:
    older = live("older", None)

    assert differing(OURS, [live("us"), live("b", OTHER), live("c", OTHER), older]) == {
        "catalogue": ["b", "c"],
        "version": ["older"],
    }


def test_a_fingerprint_is_published_with_each_new_lease() -> None:
    port, clock = Fingerprints(), ManualClock()
    epochs: list[object | None] = [None]
    keeper = a_keeper(port, clock, epochs)
    for epochs[0] in (None, "first", "first", "second", None, "second"):
        keeper.run()

    assert port.published == ["us", "us"]


def test_a_difference_is_logged_once_until_it_changes() -> None:
    port, clock = Fingerprints(), ManualClock()
    keeper = a_keeper(port, clock, ["lease"])
    with structlog.testing.capture_logs() as lines:
        for alive in ([live("us")], [live("b", OTHER)], [live("b", OTHER)], [], [live("b", OTHER)]):
            port.alive = alive
            keeper.run()
            clock.pass_time(COMPARE_INTERVAL_S)

    assert [line["event"] for line in lines] == ["fingerprint.differed"] * 2
    assert lines[0]["others"] == {"catalogue": "b"}


def test_a_version_uses_its_own_schema_and_those_that_serve_it() -> None:
    require_schema(SCHEMA_REVISION, "0001")
    require_schema("0007", SCHEMA_REVISION)


def test_a_ledger_that_is_too_old_or_too_new_says_which_versions_go_together() -> None:
    with pytest.raises(
        NotMigrated, match=r"0001 of callgate 0\.1, .* needs 0002.* install callgate 0\.1"
    ):
        require_schema("0001", "0001", known="0002")
    with pytest.raises(
        NotMigrated, match=r"serves callgate with schema 0003 and later.* install a newer"
    ):
        require_schema("0004", "0003", known="0002")


def test_the_sections_that_differ_are_named() -> None:
    ours, theirs = (
        digests_of({"prices": [1], "providers": {}}),
        digests_of({"prices": [2], "limits": []}),
    )

    assert differing_sections(ours, theirs) == ["limits", "prices", "providers"]
    assert differing_sections(ours, ours) == []
    assert differing_sections(ours, NO_SECTIONS) == []
