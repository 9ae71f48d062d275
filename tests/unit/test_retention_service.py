"""Retention as a policy: which ages hold for whom, how much is done per run, and where it stops."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from callgate.adapters.catalogue_file import load_catalogue
from callgate.domain.catalogue import OrgRetention, Retention
from callgate.domain.errors import ConfigurationError, LedgerUnavailable
from callgate.domain.retention import ArchivedMonth, BodyAges, Partitions, Purged
from callgate.services.purge import PURGE_BATCH_MAX, PURGE_BATCHES_MAX, purge_batches
from callgate.services.retention import ARCHIVED_MONTHS_MAX, RetentionService

FULL = Purged(calls=PURGE_BATCH_MAX)
DAY_S = 86_400


@dataclass
class Store:
    """A `RetentionPort` that answers as told, and says what it was asked."""

    batches: list[Purged] = field(default_factory=list)
    """What purges find, one after the other; nothing after that."""
    months: list[ArchivedMonth] = field(default_factory=list)
    not_made: int = 0
    rows_in_default: int = 0
    is_away: bool = False
    asked: list[object] = field(default_factory=list)
    unknown_days: int = 0

    def purge(self, ages: BodyAges, *, limit: int, dry_run: bool = False) -> Purged:
        assert (limit, dry_run) == (PURGE_BATCH_MAX, False)
        self.asked.append(ages)
        return self.batches.pop(0) if self.batches else Purged()

    def calls_with_bodies(self, org_id: str) -> int:
        raise NotImplementedError

    def old_calls_with_bodies(self, org_id: str, age_s: float) -> int:
        raise NotImplementedError

    def old_dead_letters(self, ages: BodyAges, *, limit: int) -> int:
        raise NotImplementedError

    def make_partitions(self, *, months: int) -> Partitions:
        if self.is_away:
            raise LedgerUnavailable("away")
        self.asked.append(months)
        return Partitions(0, self.not_made, self.rows_in_default)

    def forget_breakers(self, *, limit: int) -> int:
        assert limit == PURGE_BATCH_MAX
        return 0

    def archive_month(self, keep_months: int, unknown_days: int = 0) -> ArchivedMonth | None:
        self.asked.append(f"archive {keep_months}")
        self.unknown_days = unknown_days
        return self.months.pop(0) if self.months else None


def test_an_organisations_own_age_comes_first() -> None:
    """Then the default; without either everything is kept."""
    ages = Retention(bodies_days=30, orgs={"acme": OrgRetention(bodies_days=7)}).body_ages()

    assert (ages.max_s("acme"), ages.max_s("zeta")) == (7 * DAY_S, 30 * DAY_S)
    assert Retention().body_ages().max_s("acme") is None
    assert Retention(orgs={"acme": OrgRetention(bodies_days=0)}).body_ages().max_s("acme") == 0


def test_one_organisation_alone_has_no_default() -> None:
    """Its age is its own or the declared default; other organisations and unprocessable messages have none."""
    ages = BodyAges(30.0, {"acme": 7.0})

    assert ages.only("acme") == BodyAges(None, {"acme": 7.0})
    assert ages.only("zeta") == BodyAges(None, {"zeta": 30.0})
    assert BodyAges(None, {"acme": 7.0}).only("zeta").is_unlimited


def test_batches_follow_each_other_until_one_is_not_full() -> None:
    """No transaction is large, and nothing is asked twice for nothing."""
    store = Store([FULL, FULL, Purged(calls=3, unprocessable_messages=1)])

    purged = purge_batches(store, BodyAges(0.0))

    assert purged == Purged(calls=2 * PURGE_BATCH_MAX + 3, unprocessable_messages=1)
    assert len(store.asked) == 3


def test_unprocessable_messages_are_purged_to_the_end_too() -> None:
    """A batch full of them is a full batch."""
    store = Store([Purged(unprocessable_messages=PURGE_BATCH_MAX)])

    purge_batches(store, BodyAges(0.0))

    assert len(store.asked) == 2


def test_a_run_is_bounded() -> None:
    """What is left is found by the next run."""
    store = Store([FULL] * (PURGE_BATCHES_MAX + 9))

    purge_batches(store, BodyAges(0.0))

    assert len(store.asked) == PURGE_BATCHES_MAX


def test_without_a_declaration_only_partitions_are_made() -> None:
    """Nothing is purged or dropped that nobody asked for."""
    store = Store()

    RetentionService(store, Retention()).run()

    assert store.asked == [3]


def test_a_run_purges_before_it_archives() -> None:
    """A month can only be dropped when its bodies are gone."""
    retention = Retention(bodies_days=20, log_months=2)
    store = Store([Purged(1)], [ArchivedMonth("a", 5), ArchivedMonth("b", 0)])

    with capture_logs() as logs:
        RetentionService(store, retention).run()

    ages = BodyAges(20 * DAY_S)
    assert store.asked == [3, ages, "archive 2", "archive 2", "archive 2"]
    assert [entry["event"] for entry in logs] == [
        "bodies.purged", "log_partition.archived", "log_partition.archived",
    ]  # fmt: skip


def test_a_month_that_must_wait_ends_the_run_with_a_warning() -> None:
    """The oldest goes first."""
    store = Store(months=[ArchivedMonth("old", None), ArchivedMonth("young", 1)])

    with capture_logs() as logs:
        RetentionService(store, Retention(bodies_days=1, log_months=1)).run()

    assert store.asked.count("archive 1") == 1
    assert [(e["event"], e["partition"]) for e in logs] == [("log_partition.deferred", "old")]


def test_a_month_that_waits_for_unknown_bills_is_told_once() -> None:
    """It may wait for weeks, and is looked at every hour; each change is news."""
    waits = ArchivedMonth("old", None, unknown_bills=3)
    months = [waits, waits, replace(waits, unknown_bills=2), ArchivedMonth("old", 9)]
    service = RetentionService(
        store := Store(months=months), Retention(bodies_days=1, log_months=1, unknown_days=50)
    )

    with capture_logs() as logs:
        for _ in range(4):
            service.run()

    assert [(e["event"], e.get("unknown_bills")) for e in logs] == [
        ("log_partition.deferred", 3), ("log_partition.deferred", 2), ("log_partition.archived", None),
    ]  # fmt: skip
    assert store.unknown_days == 50
    assert Retention().unknown_days == 45


def test_months_per_run_are_bounded() -> None:
    """The first run on an old ledger ends too."""
    store = Store(months=[ArchivedMonth("m", 1)] * (ARCHIVED_MONTHS_MAX + 5))

    RetentionService(store, Retention(bodies_days=1, log_months=1)).run()

    assert store.asked.count("archive 1") == ARCHIVED_MONTHS_MAX


def test_rows_without_a_partition_are_complained_about() -> None:
    """Every time, until they are gone."""
    with capture_logs() as logs:
        RetentionService(Store(rows_in_default=7), Retention()).run()

    assert [(e["event"], e["log_level"], e["rows"]) for e in logs] == [
        ("log_rows.not_partitioned", "warning", 7)
    ]


def test_months_that_were_not_made_are_complained_about() -> None:
    """With where to read on: somebody has to do something."""
    with capture_logs() as logs:
        RetentionService(Store(not_made=2), Retention()).run()

    ((entry),) = logs
    assert (entry["event"], entry["months"]) == ("log_partitions.not_created", 2)
    assert (Path(__file__).parents[2] / entry["hint"].split()[-1]).exists()


def test_a_ledger_that_is_away_is_the_callers_to_hear() -> None:
    """The loop logs it and comes again."""
    with pytest.raises(LedgerUnavailable):
        RetentionService(Store(is_away=True), Retention()).run()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[retention]\nbodies_days = -1", "retention.bodies_days: Input should be greater"),
        ("[retention]\nbodies_day = 1", "retention.bodies_day: unknown key, did you mean 'bodies_days'?"),
        ("[retention]\nlog_months = 0", "retention.log_months: Input should be greater"),
        ("[retention]\nlog_months = 2", "retention.bodies_days: bodies must be deleted before"),
        ("[retention]\nbodies_days = 57\nlog_months = 2", "within 56 days"),
        (
            "[retention]\nbodies_days = 7\nlog_months = 2\n[retention.orgs.acme]\nbodies_days = 60",
            "retention.orgs.acme.bodies_days: bodies must be deleted",
        ),
        ("[retention.orgs.acme]", "retention.orgs.acme.bodies_days: Field required"),
        ("[retention.orgs.'a b']\nbodies_days = 1", "retention.orgs.a b: a request cannot have"),
    ],
)  # fmt: skip
def test_a_retention_that_cannot_be_kept_stops_the_process(
    tmp_path: Path, text: str, says: str
) -> None:
    """At its start, with the key that is wrong."""
    (tmp_path / "catalogue.toml").write_text(text)

    with pytest.raises(ConfigurationError) as refused:
        load_catalogue(tmp_path / "catalogue.toml")

    assert says in str(refused.value)
