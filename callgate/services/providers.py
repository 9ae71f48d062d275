"""What each provider of the catalogue can do, whether its key is accepted, and a call that tries one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.call_order import Priority
from callgate.domain.calls import Bodies, CallState, CallView
from callgate.domain.catalogue import CHECK_CALL_TYPE, Catalogue, ProviderEntry
from callgate.domain.doctor_checks import KEY_OF
from callgate.domain.errors import CallNotFound, ConfigurationError, WaitTimeout
from callgate.domain.ports import CredentialsPort, LedgerPort
from callgate.domain.presets import Source
from callgate.domain.provider import Failure
from callgate.domain.remedies import key_todo
from callgate.domain.requests import LLMRequest, Message, ServiceTier
from callgate.domain.urls import without_login
from callgate.services.doctor import Check, Seen, failed_check, failure, named, warning
from callgate.services.submit import SubmissionOptions, SubmitService

CHECK_PROMPT = "Reply with the word: ok"
CHECK_OUTPUT_TOKENS = 256
"""Enough for a model that thinks a little before its word."""
POLL_S = 0.2
KEY_REFUSED = frozenset({"authentication_failed", "permission_denied"})
"""Codes of failures that are about the key."""
NO_ANSWER = (
    "Check base_url, network, DNS and proxy (see `transport`), and the provider's status page."
)
Ask = Callable[[CredentialsPort, str, str], Failure | None]
"""GETs a path of a provider with its key; None if it was answered with a success."""


class WorkerKeys(CredentialsPort, Protocol):
    """The keys of a worker."""

    @property
    def has_folder(self) -> bool:
        """Whether keys are looked for in a folder of secrets too."""

    def has_any(self, provider: str) -> bool:
        """Whether the provider, or any organisation of it, has a usable key."""


class KeyState(StrEnum):
    """Whether a worker in this environment has the provider's own key."""

    THERE = "there"
    MISSING = "missing"
    NOT_NEEDED = "not needed"
    ELSEWHERE = "not known here"
    """No worker can run here, so its keys are in another environment."""


@dataclass(frozen=True, slots=True)
class ProviderLine:
    """One provider of the catalogue."""

    provider: str
    protocol: str
    preset: str | None
    verified: date | None
    """When the real provider was recorded; None: the preset is unverified, or there is none."""
    endpoint: str | None
    """None: the endpoint of the protocol's author."""
    json_schema: str
    """The way to a schema's answer; `none`: a request with a schema is refused."""
    tools: bool
    tiers: tuple[str, ...]
    cannot: tuple[str, ...]
    key: KeyState


def list_providers(
    catalogue: Catalogue,
    recordings: Mapping[tuple[str, str], Source],
    credentials: CredentialsPort | None,
) -> list[ProviderLine]:
    """
    What each provider can do, by name.

    Args:
        recordings: The presets that were recorded, by protocol and preset.
        credentials: None where no worker can run.
    """
    return [
        ProviderLine(
            provider=name,
            protocol=entry.protocol,
            preset=entry.preset,
            verified=_verified(entry, recordings),
            endpoint=None if entry.base_url is None else without_login(entry.base_url),
            json_schema="none" if "response_schema" in entry.cannot else entry.json_schema,
            tools="tools" not in entry.cannot,
            tiers=_tiers(entry),
            cannot=tuple(entry.cannot),
            key=_key_state(name, entry, credentials),
        )
        for name, entry in sorted(catalogue.providers.items())
    ]


def key_checks(
    catalogue: Catalogue,
    read_credentials: Callable[[], WorkerKeys | None],
    ask: Ask,
    *,
    may_run_calls: Callable[[], bool] = lambda: True,
) -> list[Check]:
    """
    Checks of each provider's key, by the endpoints that are declared free. No call is sent.

    Args:
        read_credentials: Returns the keys of a worker in this environment; None where no worker can run. Raises
            ConfigurationError if a worker could not read them.
        ask: Asks a provider.
        may_run_calls: Whether a worker could use the login of this environment.
    """
    try:
        credentials = read_credentials()
    except ConfigurationError as exc:
        return [failed_check("keys", exc)]
    if credentials is None:
        return [Check("keys", lambda: "not known here: they are where the workers run")]
    return [
        Check("keys", lambda: _keys(catalogue, credentials, may_run_calls)),
        *(
            Check(
                f"{KEY_OF}{name}",
                _key_check(name, entry, credentials, ask, may_run_calls),
                needs="keys",
            )
            for name, entry in sorted(catalogue.providers.items())
        ),
    ]


def _keys(catalogue: Catalogue, credentials: WorkerKeys, may_run_calls: Callable[[], bool]) -> Seen:
    """Whether a worker with these keys can send anything."""
    usable = [
        name
        for name, entry in sorted(catalogue.providers.items())
        if not entry.needs_key or credentials.has_any(name)
    ]
    total = len(catalogue.providers)
    if usable:
        return Seen(f"{len(usable)} of {total} providers have one, or need none")
    if not may_run_calls():
        return Seen(
            "none here, where no worker runs with this login: they are where the workers run"
        )
    providers = sorted(catalogue.providers)
    return failure(
        f"none of {total} providers has one in this environment, so a worker here can send nothing:"
        f" {named(providers)}",
        _put_key(providers[0], credentials) if total == 1 else _put_keys(credentials),
    )


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """What became of the call that tried a provider."""

    task_id: str
    outcome: str
    """`succeeded`, or the code of the error."""
    message: str
    cost_usd: Decimal
    """What was posted for all its attempts."""
    latency_ms: int | None
    """Of the last attempt."""
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    price_source: str | None

    @property
    def is_good(self) -> bool:
        """True if an answer came."""
        return self.outcome == CallState.SUCCEEDED


class ProviderCheckService:
    """Tries a provider with an ordinary small call: held, recorded and posted like any other."""

    def __init__(
        self,
        *,
        submits: SubmitService,
        ledger: LedgerPort,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._submits = submits
        self._ledger = ledger
        self._sleep = sleep
        self._monotonic = monotonic

    def check(self, provider: str, model: str, org_id: str, timeout_s: float) -> ProviderCheck:
        """
        Submit a call for an organisation, and wait for its end. Its budget pays.

        Raises:
            InvalidRequest: A gate refused it; nothing was stored.
            WaitTimeout: It is still open after `timeout_s`; it goes on.
            OrganisationBusy, OrganisationFrozen, LedgerUnavailable
        """
        request = LLMRequest(
            org_id=org_id,
            call_type=CHECK_CALL_TYPE,
            provider=provider,
            model=model,
            messages=(Message(role="user", content=CHECK_PROMPT),),
            max_output_tokens=CHECK_OUTPUT_TOKENS,
        )
        options = SubmissionOptions(priority=Priority.INTERACTIVE)
        # A result of last week says nothing about today.
        (submitted,) = self._submits.submit([request], force=True, options=options)
        ends_at = self._monotonic() + timeout_s
        while True:
            (view,) = self._ledger.read([submitted.key], Bodies.NONE)
            if view is None:
                raise CallNotFound(f"the ledger has no call {submitted.key.task_id}")
            if not view.state.is_open:
                return _outcome(view)
            if self._monotonic() >= ends_at:
                raise WaitTimeout(
                    f"call {view.key.task_id} was still {view.state} after {timeout_s:g} s; it goes on: see `callgate"
                    " calls show`, and check that a worker runs"
                )
            self._sleep(POLL_S)


def _verified(entry: ProviderEntry, recordings: Mapping[tuple[str, str], Source]) -> date | None:
    recording = recordings.get((entry.protocol, entry.preset or ""))
    return None if recording is None else recording.as_of


def _tiers(entry: ProviderEntry) -> tuple[str, ...]:
    if not entry.sends_service_tier or "service_tier" in entry.cannot:
        return (ServiceTier.DEFAULT.value,)
    return tuple(tier.value for tier in entry.tier_names)


def _key_state(name: str, entry: ProviderEntry, credentials: CredentialsPort | None) -> KeyState:
    if credentials is None:
        return KeyState.ELSEWHERE
    if credentials.access(name, "").key is not None:
        return KeyState.THERE
    return KeyState.MISSING if entry.needs_key else KeyState.NOT_NEEDED


def _key_check(
    name: str,
    entry: ProviderEntry,
    credentials: WorkerKeys,
    ask: Ask,
    may_run_calls: Callable[[], bool],
) -> Callable[[], Seen | None]:
    def look() -> Seen | None:
        state = _key_state(name, entry, credentials)
        if state is KeyState.MISSING:
            if not may_run_calls():
                return None
            if credentials.has_any(name):
                return Seen("organisations have their own; the provider has none for the others")
            return warning(
                "there is none, so its calls cannot be sent", _put_key(name, credentials)
            )
        if entry.free_check is None:
            return Seen(
                f"{state}; the provider was not asked: its preset declares no free endpoint (free_check)"
            )
        failed = ask(credentials, name, entry.free_check)
        if failed is None:
            return Seen(f"{state}; GET {entry.free_check} was answered")
        if failed.code in KEY_REFUSED:
            return failure(
                f"the provider refused it ({failed.message})", _put_key(name, credentials)
            )
        return warning(f"GET {entry.free_check} failed: {failed.message}", NO_ANSWER)

    return look


def _put_keys(credentials: WorkerKeys) -> str:
    example = key_todo("", has_folder=credentials.has_folder)
    return f"Give the worker a key of each provider that is used: {example}; PROVIDER is its name."


def _put_key(name: str, credentials: WorkerKeys) -> str:
    todo = key_todo(name, has_folder=credentials.has_folder)
    return f"Give the worker a valid key: {todo}. Or remove the provider from the catalogue."


def _outcome(view: CallView) -> ProviderCheck:
    is_good = view.state is CallState.SUCCEEDED
    error = {} if is_good else json.loads(view.error or "{}")
    last = view.last
    usage = last.usage if last else None
    return ProviderCheck(
        task_id=view.key.task_id,
        outcome=CallState.SUCCEEDED if is_good else str(error.get("code", view.state)),
        message=str(error.get("message", "")),
        cost_usd=Decimal(view.posted_nano_usd) / NANO_PER_USD,
        latency_ms=last.latency_ms if last else None,
        attempts=view.attempt,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        price_source=last.price_source if last else None,
    )
