"""What providers can do, as values; the doctor's questions about keys; and the call that tries a provider."""

from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal

import pytest

from callgate.domain.access import Access
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.errors import UnknownProvider, WaitTimeout
from callgate.domain.ports import CredentialsPort
from callgate.domain.presets import Source
from callgate.domain.provider import Billing, Failure
from callgate.services.doctor import Finding, FindingStatus, run_checks
from callgate.services.providers import (
    KeyState,
    ProviderCheck,
    ProviderCheckService,
    key_checks,
    list_providers,
)
from tests.support.provider_worlds import Keys
from tests.support.service_world import REPLY_COST, ServiceWorld

RECORDED = Source(url="cassettes/groq.yaml", as_of=date(2026, 11, 29))


def catalogue_of(**entry: object) -> Catalogue:
    return Catalogue(providers={"p": ProviderEntry.model_validate(entry)})


@pytest.mark.parametrize(
    ("entry", "verified"),
    [
        ({"preset": "groq"}, RECORDED.as_of),
        ({"preset": "groq", "protocol": "other"}, None),
        ({"preset": "mistral"}, None),
        ({}, None),
    ],
)
def test_a_preset_is_verified_by_a_recording_of_its_protocol(
    entry: dict[str, object], verified: date | None
) -> None:
    (line,) = list_providers(catalogue_of(**entry), {("openai", "groq"): RECORDED}, Keys())

    assert line.verified == verified


def test_a_line_says_what_a_provider_can_do() -> None:
    entry = {
        "base_url": "https://user:secret@example.org/v1",
        "sends_service_tier": True,
        "tier_names": {"default": "on_demand", "flex": "flex"},
        "cannot": ("tools", "seed"),
        "json_schema": "prompt",
    }

    (line,) = list_providers(catalogue_of(**entry), {}, Keys())

    assert (line.endpoint, line.json_schema) == ("https://example.org/v1", "prompt")
    assert (line.tools, line.tiers) == (False, ("default", "flex"))
    assert line.cannot == ("tools", "seed")


def test_a_provider_that_refuses_schemas_has_no_way_to_answer_them() -> None:
    (line,) = list_providers(catalogue_of(cannot=("response_schema",)), {}, Keys())

    assert line.json_schema == "none"


@pytest.mark.parametrize(
    ("keys", "needs_key", "state"),
    [
        (None, True, KeyState.ELSEWHERE),
        (Keys(), True, KeyState.THERE),
        (Keys(None), True, KeyState.MISSING),
        (Keys(None), False, KeyState.NOT_NEEDED),
    ],
)
def test_a_line_says_whether_a_key_is_there(
    keys: Keys | None, needs_key: bool, state: KeyState
) -> None:
    (line,) = list_providers(catalogue_of(needs_key=needs_key), {}, keys)

    assert line.key is state


def findings_of(
    entry: dict[str, object], keys: Keys | None, answer: Failure | None
) -> tuple[list[Finding], list[str]]:
    """What the doctor finds, and the paths that it asked."""
    asked: list[str] = []

    def ask(_credentials: CredentialsPort, _name: str, path: str) -> Failure | None:
        asked.append(path)
        return answer

    return list(run_checks(key_checks(catalogue_of(**entry), lambda: keys, ask))), asked


REFUSED = Failure("authentication_failed", "HTTP 401: no", False, Billing.UNBILLED, 401)
AWAY = Failure("connect_timeout", "no connection in time", True, Billing.UNBILLED)
FREE = {"free_check": "/models"}


@pytest.mark.parametrize(
    ("entry", "keys", "answer", "status", "says", "is_asked"),
    [
        (FREE, Keys(), None, FindingStatus.OK, "GET /models was answered", True),
        (FREE, Keys(), REFUSED, FindingStatus.FAIL, "refused it (HTTP 401: no)", True),
        (FREE, Keys(), AWAY, FindingStatus.WARN, "no connection in time", True),
        (FREE, Keys(None), None, FindingStatus.FAIL, "none of 1 providers has one", False),
        ({}, Keys(), None, FindingStatus.OK, "was not asked", False),
        (FREE, None, None, FindingStatus.OK, "not known here", False),
        ({**FREE, "needs_key": False}, Keys(None), None, FindingStatus.OK, "not needed", True),
    ],
)
def test_the_doctor_asks_only_what_is_free(
    entry: dict[str, object],
    keys: Keys | None,
    answer: Failure | None,
    status: FindingStatus,
    says: str,
    is_asked: bool,
) -> None:
    findings, asked = findings_of(entry, keys, answer)

    assert findings[-1].status is status
    assert says in findings[-1].sentence
    assert bool(findings[-1].todo) == (status is not FindingStatus.OK)
    assert asked == (["/models"] if is_asked else [])


class KeysOf:
    """`WorkerKeys` with keys of organisations only, for some providers."""

    has_folder = True

    def __init__(self, *providers: str) -> None:
        self._providers = providers

    def access(self, provider: str, org_id: str) -> Access:
        return Access(None)

    def has_any(self, provider: str) -> bool:
        return provider in self._providers


def test_a_provider_without_a_key_is_named_with_the_file_to_make() -> None:
    """One key is enough for a worker to send something."""
    catalogue = Catalogue(providers={"p": ProviderEntry(), "q": ProviderEntry()})

    keys, own, missing = run_checks(key_checks(catalogue, lambda: KeysOf("p"), lambda *_: AWAY))

    assert (keys.status, keys.sentence) == (
        FindingStatus.OK,
        "1 of 2 providers have one, or need none",
    )
    assert (own.status, missing.status) == (FindingStatus.OK, FindingStatus.WARN)
    assert "organisations have their own" in own.sentence
    assert "the file q of CALLGATE_WORKER__CREDENTIALS_DIR" in missing.todo


def test_where_no_worker_runs_missing_keys_are_not_amiss() -> None:
    """A dashboard's environment has none."""
    catalogue = catalogue_of(**FREE)
    checks = key_checks(catalogue, lambda: Keys(None), lambda *_: AWAY, may_run_calls=lambda: False)

    (finding,) = run_checks(checks)

    assert finding.status is FindingStatus.OK
    assert "where the workers run" in finding.sentence


def checked(world: ServiceWorld, *, runs: bool = True, org_id: str = "acme") -> ProviderCheck:
    """Check the provider; a worker runs the call while it is waited for."""

    def sleep(seconds: float) -> None:
        world.clock.pass_time(seconds)
        if runs and world.queue.calls:
            key: CallKey = world.queue.calls.pop()
            asyncio.run(world.run(key))

    service = ProviderCheckService(
        submits=world.submits, ledger=world.ledger, sleep=sleep, monotonic=world.clock.monotonic
    )
    return service.check("sim", "sim-1", org_id, 30.0)


def test_a_check_is_an_ordinary_call_that_the_organisation_pays() -> None:
    world = ServiceWorld()

    found = checked(world)

    assert found.is_good
    assert found.cost_usd == Decimal(REPLY_COST) / 10**9
    assert (found.attempts, found.input_tokens, found.output_tokens) == (1, 10, 5)
    (budget,) = world.ledger.budgets("acme")
    assert (budget.spent_nano_usd, budget.reserved_nano_usd) == (REPLY_COST, 0)
    assert [request.org_id for request, _, _ in world.provider.requests] == ["acme"]


def test_each_check_asks_again() -> None:
    """A stored answer would say nothing."""
    world = ServiceWorld()

    tasks = {checked(world).task_id, checked(world).task_id}

    assert len(tasks) == len(world.provider.requests) == 2


def test_a_refusal_is_the_outcome() -> None:
    world = ServiceWorld()
    world.provider.script = [REFUSED]

    found = checked(world)

    assert (found.is_good, found.outcome) == (False, "authentication_failed")
    assert found.cost_usd == 0


def test_without_a_budget_nothing_is_sent() -> None:
    world = ServiceWorld()

    found = checked(world, org_id="pauper")

    assert found.outcome == "budget_not_configured"
    assert world.provider.requests == []


def test_an_unknown_provider_is_refused_before_anything_is_stored() -> None:
    world = ServiceWorld()
    service = ProviderCheckService(
        submits=world.submits,
        ledger=world.ledger,
        sleep=world.clock.pass_time,
        monotonic=world.clock.monotonic,
    )

    with pytest.raises(UnknownProvider):
        service.check("other", "m", "acme", 1.0)

    assert not world.ledger.tables.calls


def test_without_a_worker_the_wait_is_bounded() -> None:
    world = ServiceWorld()

    with pytest.raises(WaitTimeout, match=r"still queued after 30 s"):
        checked(world, runs=False)

    assert 30.0 <= world.clock.elapsed_s < 31.0
