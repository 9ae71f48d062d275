"""What is promised to tenants beside a hostile one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.domain.budgets import RefusalReason
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.ledger import NewSubmission, Reserve, Settle, SettleOutcome
from tests.simulation.attacks import ATTACK_S, HOSTILE, JUNK
from tests.simulation.breakers import Breakers
from tests.simulation.invariants import Invariants
from tests.simulation.release_rule import Headroom

if TYPE_CHECKING:
    from callgate.domain.delivery import Delivery
    from tests.simulation.hostile import HostileWorld
    from tests.simulation.scheduler import Owner

END_MAX_S = 20.0
"""From submission to end, of each call of the others that died with no worker."""
DIED_MAX_S = 25.0
"""The same of one that did: a lease runs out, and it is made again after its wait."""
UNSETTLED_MAX_S = 40.0
"""The same of one whose answer a dying worker was to settle: it is found when its deadline and the grace are over."""
LOST_MAX_S = 60.0 + END_MAX_S
"""The same of one whose message was lost while many were queued: a sweep does not pass through the express lane."""
CONGESTED_AT = 8
TOLD_MAX_S = 15.0
"""From the end of a call of the others to its link at the broker, also if the worker that publishes it has died."""
RECOVERY_MAX_S = 15.0
"""Between two looks of a process for calls that are due."""
BOMB_BYTES = b"never checked to the end"
LINK_TRIES_MAX, LINK_WAIT_S = 25, 5.0
"""Tries in all, and what a failing link waits at least before its second; each wait is twice as long as the last."""


class OthersHeadroom(Headroom):
    """Who is released among the others; the tenant's calls may be held, and are released when they are free."""

    def _wanting(self) -> list[CallRow]:
        return [call for call in super()._wanting() if call.org_id != HOSTILE]


class OthersBreakers(Breakers):
    """The breakers of the others; the tenant has a key, and so a breaker, of its own."""

    def admitted(self, call: CallRow, row: AttemptRow, now: datetime) -> None:
        """See `Breakers`."""
        if call.org_id != HOSTILE:
            super().admitted(call, row, now)

    def refused(self, call: CallRow, claim: Reserve, now: datetime) -> None:
        """See `Breakers`."""
        if call.org_id != HOSTILE:
            super().refused(call, claim, now)

    def refused_for_money(self, call: CallRow, claim: Reserve, reason: RefusalReason) -> None:
        """See `Breakers`. A wait of the tenant can have begun at its own key, which is not followed here."""
        now = self._world.scheduler.time()
        is_over = call.wait_until is not None and call.wait_until <= now
        if call.org_id != HOSTILE or not is_over:
            super().refused_for_money(call, claim, reason)

    def _settled(
        self, batch: Sequence[Settle], outcomes: Sequence[SettleOutcome], now: datetime
    ) -> None:
        calls = self._tables.calls
        pairs = zip(batch, outcomes, strict=True)
        others = [pair for pair in pairs if calls[pair[0].ref.key].org_id != HOSTILE]
        super()._settled([s for s, _ in others], [o for _, o in others], now)


class TenantInvariants(Invariants):
    """What is promised to the others, besides everything else."""

    def __init__(self, world: HostileWorld) -> None:
        super().__init__(world)
        self._headroom, self.breakers = OthersHeadroom(world), OthersBreakers(world)
        self._hostile_world = world
        self._asked: dict[CallKey, float] = {}
        """The calls of the others, and when they were submitted."""
        self._open: set[CallKey] = set()
        self._lost: set[CallKey] = set()
        """Those of them whose message was lost."""
        self._congested_at = -1.0
        """When a sweep last found many queued."""
        self._ended_at: dict[CallKey, float] = {}
        self._links: dict[CallKey, UUID] = {}
        """Submissions of the others that gave a link for a call that had not ended."""
        self._told_from: dict[UUID, float] = {}
        """Submissions of the others whose link is still to come, and since when it could."""
        self._refused_at: defaultdict[UUID, list[float]] = defaultdict(list)
        """When the broker refused which of the tenant's links."""
        self._looked_at: dict[Owner, float] = {}
        """When which process last looked for calls that are due."""

    @property
    def done(self) -> int:
        """How many calls of the others have ended while the attack lasted."""
        return sum(at <= ATTACK_S for at in self._ended_at.values())

    def begins(self, new: NewSubmission, key: CallKey, *, is_lost: bool) -> None:
        """One of the others has submitted a call; its message may be lost."""
        self._asked[key] = self._hostile_world.scheduler.now
        self._open.add(key)
        if is_lost:
            self._lost.add(key)
        if new.link is not None:
            self._links[key] = new.submission_id

    def asks_again(self, new: NewSubmission) -> None:
        """One of the others gives a link for a call that has ended."""
        self._told_from[new.submission_id] = self._hostile_world.scheduler.now

    def after(
        self, name: str, arguments: Sequence[Any], options: Mapping[str, Any], result: Any
    ) -> None:
        """See `Invariants`; sweeps look at how many are queued."""
        super().after(name, arguments, options, result)
        if name == "take_lost_messages":
            queued = sum(c.state is CallState.QUEUED for c in self._tables.calls.values())
            if queued >= CONGESTED_AT:
                self._congested_at = self._hostile_world.scheduler.now

    def on_link_published(self, link: Delivery) -> None:
        """A submitter is told."""
        super().on_link_published(link)
        self._told_from.pop(link.submission_id, None)

    def on_link_refused(self, link: Delivery) -> None:
        """The broker takes no message for a link: it is tried again ever less often, and then no more."""
        refused_at, now = (
            self._refused_at[link.submission_id],
            self._hostile_world.scheduler.now,
        )
        refused_at.append(now)
        n, since_s = len(refused_at), now - refused_at[0]
        said = f"{self._hostile_world.named(link)} is tried {n} times in {since_s:.1f} s"
        self.check("a_failing_link_is_given_up", n <= LINK_TRIES_MAX, said)
        self._hostile_world.scheduler.counts["link refused"] += 1
        is_rare = since_s >= LINK_WAIT_S * (2.0 ** min(n - 1, 7) - 1)
        self.check("a_failing_link_is_tried_ever_less_often", is_rare, said)

    def is_owed(self, link: str | None) -> bool:
        """The tenant's links lead nowhere: they are owed a few tries."""
        return super().is_owed(link) and link != JUNK

    def looks_for_due(self, process: Owner) -> None:
        """A process looks for calls that are due: nothing of the tenant keeps it from that for long."""
        now = self._hostile_world.scheduler.now
        since_s = now - self._looked_at.get(process, now)
        said = f"{process.name} looked for calls that are due {since_s:.1f} s ago"
        self.check("recovery_goes_on", since_s <= RECOVERY_MAX_S, said)
        self._looked_at[process] = now

    def nobody_waits_too_long(self) -> None:
        """No call of the others is open for too long, and no link of an ended one is still to come."""
        now, named = self._hostile_world.scheduler.now, self._hostile_world.named
        for key in sorted(self._open):
            call = self._tables.calls[key]
            if not call.state.is_open:
                self._open.remove(key)
                self._ended_at[key] = now
                if (submission_id := self._links.get(key)) and not self._told[submission_id]:
                    self._told_from[submission_id] = now
                self._ended(key)
                continue
            waits_s = now - self._asked[key]
            said = f"{named(key)} of {call.org_id} is {call.state} after {waits_s:.1f} s"
            self.check("others_end_in_time", waits_s <= self._bound_s(key), said)
        for submission_id, since in self._told_from.items():
            waits_s = now - since
            said = f"{named(submission_id)} is not told after {waits_s:.1f} s"
            self.check("others_are_told_in_time", waits_s <= TOLD_MAX_S, said)

    def at_rest(self) -> None:
        """Besides everything else: an answer that nobody could check was paid, and is posted as that."""
        super().at_rest()
        for attempt_id, row in self._tables.attempts.items():
            request, bill = self._tables.calls[row.key].request, self._world.bills.get(attempt_id)
            if bill is not None and request is not None and BOMB_BYTES in request:
                said = f"{self._hostile_world.named(attempt_id)} posts {row.posted_nano_usd} of {bill.nano_usd}"
                is_paid = (
                    row.posted_nano_usd == bill.nano_usd
                    or row.process in self._hostile_world.deaths
                )
                self.check("a_check_given_up_posts_its_usage", is_paid, said)

    def _bound_s(self, key: CallKey) -> float:
        if any(self._died_with_worker(row) for row in self._tables.attempts_of[key]):
            return DIED_MAX_S
        if key in self._lost and self._asked[key] <= self._congested_at:
            return LOST_MAX_S
        deaths = self._hostile_world.deaths.values()
        return UNSETTLED_MAX_S if any(self._asked[key] <= at for at in deaths) else END_MAX_S

    def _ended(self, key: CallKey) -> None:
        """It succeeded; but for what died with a worker, it was sent once and posted at its usage."""
        call, rows = self._tables.calls[key], self._tables.attempts_of[key]
        name = f"{self._hostile_world.named(key)} of {call.org_id}"
        said = f"{name} is {call.state}: {call.error}"
        self.check("others_succeed", call.state is CallState.SUCCEEDED, said)
        alive = [row for row in rows if not self._died_with_worker(row)]
        said = f"{name} has {len(rows)} attempts"
        self.check("others_are_sent_once", len(alive) == 1, said)
        for row in alive:
            said = f"{name} posts {row.posted_nano_usd} of {row.hold_nano_usd}: {row.status}"
            is_usage = row.status is AttemptStatus.SUCCEEDED and row.usage is not None
            self.check("others_post_their_usage", is_usage, said)

    def _died_with_worker(self, row: AttemptRow) -> bool:
        is_open = row.status in (AttemptStatus.DISPATCHED, AttemptStatus.UNKNOWN)
        return row.process in self._hostile_world.deaths and is_open
