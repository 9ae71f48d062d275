"""What requests may cost before anything is run, over both ledgers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.json_schema_validator import JsonSchemaValidator
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.bounds import REQUEST_MAX_BYTES
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import CallTypePolicy, Catalogue, ProviderEntry
from callgate.domain.errors import InvalidRequest
from callgate.domain.estimates import Candidate, Estimate, exact_usd
from callgate.domain.price_entry import PriceEntry
from callgate.domain.provider import ProviderReply
from callgate.domain.repairs import Broken, invalid_output, repair_of
from callgate.domain.requests import LLMRequest
from callgate.services import estimates
from callgate.services.estimates import EstimateService, candidates_in
from callgate.services.submit import SubmitService
from tests.support.ledger_under_test import DAY_S, LedgerUnderTest, a_failure, a_success, an_answer
from tests.support.service_world import RecordingQueue, a_request

PRICE = {"provider": "sim", "source": "test", "as_of": "2026-11-01"}
CATALOGUE = Catalogue(
    providers={"sim": ProviderEntry(needs_key=False)},
    default=CallTypePolicy(max_output_tokens_default=100, attempts_max=5),
    call_types={"big": CallTypePolicy(input_tokens_max=10**9), "once": CallTypePolicy(attempts_max=1)},
    prices=(
        PriceEntry(model="sim-1", input_usd_per_million=1, output_usd_per_million=2, **PRICE),
        PriceEntry(model="local", free=True, **PRICE),
    ),
)  # fmt: skip


class World:
    """Submissions and estimates over one ledger."""

    def __init__(self, ledger: LedgerUnderTest) -> None:
        self.ledger = ledger
        ledger.set_budget(10**9)
        self.submits = SubmitService(
            ledger=ledger.ledger,
            queue=RecordingQueue(),
            estimator=TokenEstimator(CATALOGUE),
            costs=CostCalculator(CATALOGUE),
            validator=JsonSchemaValidator(),
            catalogue=CATALOGUE,
            now=lambda: datetime.now(UTC),
        )
        self.service = EstimateService(self.submits, ledger.operations, CATALOGUE)

    def estimate(self, *requests: LLMRequest) -> Estimate:
        return self.service.estimate(Candidate(n, r) for n, r in enumerate(requests, start=1))

    def read(self, lines: Iterable[bytes]) -> Estimate:
        return self.service.estimate(candidates_in(lines))

    def submitted(self, request: LLMRequest) -> CallKey:
        (answer,) = self.submits.submit([request])
        return answer.key

    def hold(self, request: LLMRequest) -> int:
        return self.submits.quote(request).worst_case_nano_usd

    def succeeded(self, request: LLMRequest, posted_nano_usd: int) -> CallKey:
        key = self.submitted(request)
        ref = self.ledger.claim(key, self.hold(request))
        self.ledger.record(an_answer(ref))
        self.ledger.settle(a_success(ref, posted_nano_usd))
        return key


@pytest.fixture
def world(ledger: LedgerUnderTest) -> World:
    return World(ledger)


def test_the_worst_case_is_the_sum_of_the_holds_of_new_requests(world: World) -> None:
    """Nothing is stored. Without a history nothing is expected."""
    requests = [a_request(f"text {n}") for n in range(3)]

    found = world.estimate(*requests, a_request("free", model="local"))

    free, group = found.groups
    assert found.requests == 4
    assert found.worst_case_nano_usd == sum(map(world.hold, requests)) == group.worst_case_nano_usd
    assert (group.requests, group.new, group.history_attempts) == (3, 3, 0)
    assert group.expected_nano_usd is None
    assert (free.worst_case_nano_usd, free.expected_nano_usd) == (0, 0)
    assert (found.expected_nano_usd, found.without_history) == (0, 3)
    assert world.ledger.operations.snapshot().calls_by_state == {}


def test_what_is_expected_comes_from_what_answers_cost(world: World) -> None:
    """A third of their holds, in the last 30 days. Other models, call types and organisations say nothing."""
    for n in range(3):
        request = a_request(f"before {n}")
        world.succeeded(request, world.hold(request) // 3)
    new = a_request("new")

    found = world.estimate(
        new, a_request("other", call_type="other"), a_request("x", org_id="other")
    )

    by_type = {(g.name.org_id, g.name.call_type): g for g in found.groups}
    group = by_type["acme", "test"]
    assert group.history_attempts == 3
    assert group.expected_nano_usd is not None
    assert abs(group.expected_nano_usd - world.hold(new) / 3) <= 1
    assert by_type["acme", "other"].expected_nano_usd is None
    assert by_type["other", "test"].expected_nano_usd is None
    assert found.without_history == 2
    world.ledger.age(31 * DAY_S)
    assert world.estimate(new).groups[0].expected_nano_usd is None


def test_what_is_answered_already_costs_nothing(world: World) -> None:
    """As submit_many would find it: replayed, joined, dead. A rejected call is made again."""
    world.succeeded(a_request("answered"), 5)
    world.submitted(a_request("queued"))
    dead = world.ledger.claim(world.submitted(a_request("dead")), 7)
    world.ledger.record(an_answer(dead))
    world.ledger.settle(a_failure(dead))
    cancelled = world.submitted(a_request("cancelled"))
    world.ledger.operations.end([cancelled], code="cancelled", message="no")  # type: ignore[arg-type]
    names = ("answered", "queued", "dead", "cancelled", "new", "new", "answered")

    (group,) = world.estimate(*map(a_request, names)).groups

    assert (group.requests, group.replayed, group.joined, group.failed) == (7, 1, 1, 1)
    assert (group.new, group.duplicates) == (2, 2)
    assert group.worst_case_nano_usd == world.hold(a_request("cancelled")) + world.hold(
        a_request("new")
    )


def test_the_newest_generation_counts(world: World) -> None:
    """Cancelled first, answered in its second generation."""
    first = world.submitted(a_request("again"))
    world.ledger.operations.end([first], code="cancelled", message="no")  # type: ignore[arg-type]
    world.succeeded(a_request("again"), 5)

    (group,) = world.estimate(a_request("again")).groups

    assert (group.new, group.replayed) == (0, 1)


def test_a_purged_answer_is_asked_for_again(world: World) -> None:
    world.succeeded(a_request("purged"), 5)
    world.ledger.age(DAY_S)
    world.ledger.purge(age_s=0)

    (group,) = world.estimate(a_request("purged")).groups

    assert (group.new, group.replayed) == (1, 0)


def test_refused_requests_are_counted_by_reason(world: World) -> None:
    """They cost nothing, and spoil nothing else."""
    found = world.estimate(
        a_request("fine"),
        a_request("x", model="unpriced"),
        a_request("x", provider="nowhere"),
        a_request("y", model="unpriced"),
        a_request("z", call_type="big"),
    )

    refused = {group.code: (group.requests, group.numbers) for group in found.refused}
    assert refused == {
        "unpriced_model": (2, (2, 4)),
        "unknown_provider": (1, (3,)),
        "missing_output_bound": (1, (5,)),
    }
    assert found.requests == 5
    assert sum(group.requests for group in found.groups) == 1


def test_retries_may_add_what_the_policy_allows(world: World) -> None:
    """Five attempts at most; one; and paid_failures_max + unknown_attempts_max + worker_losses_max - 2."""
    requests = [a_request("x"), a_request("y", call_type="once", max_output_tokens=100)]

    found = world.estimate(*requests)

    assert found.retries_nano_usd == 4 * world.hold(requests[0])


PRIVATE = "my private prompt"
FINE = a_request("fine").model_dump_json().encode()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "invalid_request"),
        (b"\xff\xfe", "invalid_request"),
        (b"[1]", "invalid_request"),
        (json.dumps(PRIVATE).encode(), "invalid_request"),
        (FINE.replace(b'"fine"', f'"fine","{PRIVATE}":1'.encode()), "invalid_request"),
        (FINE.replace(b'"org_id"', f'"{PRIVATE}":1,"org_id"'.encode()), "invalid_request"),
        (FINE.replace(b'"acme"', f'"{PRIVATE}"'.encode()), "invalid_request"),
        (b"[" * 100_000, "invalid_request"),
        (b'"' + b"x" * (REQUEST_MAX_BYTES + 1), "input_too_large"),
    ],
)
def test_a_line_that_is_no_request_is_named_by_its_number(
    world: World, line: bytes, code: str
) -> None:
    """Its own words may be a prompt. Empty lines are left out."""
    found = world.read([b"\n", FINE + b"\r\n", line + b"\n", b"  \n", FINE])

    (refused,) = found.refused
    assert (refused.code, refused.requests, refused.numbers) == (code, 1, (3,))
    assert found.requests == 3
    assert PRIVATE not in str(found)
    (group,) = found.groups
    assert (group.new, group.duplicates) == (1, 1)


def test_memory_has_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them duplicates count as new, and it says so: the worst case is never too low."""
    monkeypatch.setattr(estimates, "SEEN_MAX", 2)
    requests = [a_request(str(n)) for n in (1, 2, 3, 3, 1)]

    found = world.estimate(*requests)

    assert (found.groups[0].new, found.groups[0].duplicates) == (4, 1)
    assert not found.are_duplicates_complete
    monkeypatch.setattr(estimates, "GROUPS_MAX", 2)
    with pytest.raises(InvalidRequest, match="more than 2 organisations"):
        world.estimate(*(a_request("x", call_type=f"t{n}") for n in range(3)))


def test_many_requests_are_looked_up_a_thousand_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "ROWS_MAX", 3)
    world.succeeded(a_request("5"), 5)

    (group,) = world.estimate(*(a_request(str(n)) for n in range(10))).groups

    assert (group.new, group.replayed) == (9, 1)


def test_refused_numbers_are_few(world: World) -> None:
    found = world.estimate(*(a_request(str(n), model="unpriced") for n in range(50)))

    assert found.refused[0].requests == 50
    assert found.refused[0].numbers == tuple(range(1, 21))
    assert found.groups == ()


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (12_300, "0.000012300"), (10**18 + 1, "1000000000.000000001")],
)  # fmt: skip
def test_amounts_are_exact(nano_usd: int, text: str) -> None:
    assert exact_usd(nano_usd) == text


def test_the_worst_case_has_the_repairs_that_are_possible(world: World) -> None:
    """A repair has the broken answer too, as long as the output bound allows. Without a schema there is none."""
    plain = a_request("x", max_output_tokens=1_000)
    asked = plain.model_copy(update={"response_schema": '{"type": "object"}'})
    several = asked.model_copy(update={"n": 2})

    found, without, of_two = map(world.estimate, (asked, plain, several))

    assert (without.repairs_nano_usd, of_two.repairs_nano_usd) == (0, 0)
    hold = world.hold(asked)
    assert found.worst_case_nano_usd == hold + found.repairs_nano_usd
    reply = ProviderReply(("a" * 1_000,), "stop", None, None, None, "sim-1", None)
    repaired = repair_of(asked, Broken(invalid_output(["$: breaks 'type'"]), reply))
    assert found.repairs_nano_usd >= world.hold(repaired) > hold
    assert found.retries_nano_usd == 3 * found.repairs_nano_usd


def test_repairs_of_a_call_type_that_has_none_cost_nothing(world: World) -> None:
    asked = a_request(
        "x", call_type="once", max_output_tokens=10, response_schema={"type": "object"}
    )

    assert world.estimate(asked).repairs_nano_usd == 0
