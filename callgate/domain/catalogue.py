"""
What operators declare: providers, call types and negotiated prices.

The catalogue is one TOML file (see `config/catalogue.toml`), read once where the program is composed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from callgate.domain.endings import MEANINGS
from callgate.domain.retention import UNKNOWN_DAYS, BodyAges
from callgate.domain.urls import misread

PositiveSeconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=0, le=36_500)]
DAY_S = 86_400
MONTH_DAYS_MIN = 28
UsdPerMillion = Annotated[Decimal, Field(ge=0, le=1_000_000)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CallTypePolicy(_Entry):
    """What one call type may ask for, and how stubbornly it is tried."""

    models: tuple[str, ...] = ()
    """Allowed `provider/model` patterns (`openai/gpt-4o*`); empty: every priced model of a known provider."""
    input_tokens_max: Annotated[int, Field(ge=1)] = 128_000
    pages_max: Annotated[int, Field(ge=0)] = 200
    max_output_tokens_default: Annotated[int, Field(ge=1)] | None = None
    max_output_tokens_max: Annotated[int, Field(ge=1)] = 16_384
    deadline_s: PositiveSeconds = 60.0
    """One attempt's patience, from before its hold to the last byte of the reply."""
    attempts_max: Annotated[int, Field(ge=1, le=100)] = 5
    worker_losses_max: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts whose worker vanished before the call is called poisonous."""
    on_unknown: Literal["retry", "dead"] = "retry"
    """Whether to call again when nobody can learn if the last request was billed."""
    unknown_attempts_max: Annotated[int, Field(ge=1, le=100)] = 2
    """Attempts that may end with an unknown bill: each of them posts its whole hold."""
    unknown_wait_s: PositiveSeconds = 30.0
    """The wait after the first of them, doubled each time: an outage should not use them up."""
    paid_failures_max: Annotated[int, Field(ge=1, le=100)] = 2
    """Attempts that may be paid without a result (invalid output, an empty reply)."""
    wait_max_s: Annotated[float, Field(gt=0, le=30 * DAY_S, allow_inf_nan=False)] = float(DAY_S)
    """How long a call waits for a provider that is left alone, before it is rejected unpaid."""
    retry_wait_s: PositiveSeconds = 1.0
    retry_wait_max_s: PositiveSeconds = 60.0
    retry_after_max_s: PositiveSeconds = 600.0
    """The longest wait a provider may ask for with Retry-After."""

    def allows(self, provider: str, model: str) -> bool:
        """True if the call type may use this model."""
        return not self.models or any(fnmatchcase(f"{provider}/{model}", p) for p in self.models)


class ProviderEntry(_Entry):
    """One account and endpoint that speaks a known protocol."""

    protocol: Literal["openai"] = "openai"
    base_url: str | None = None
    """None: the SDK's own default."""
    pricing_provider: str | None = None
    """The provider's id in the price catalogue; its own name if None."""
    needs_key: bool = True
    """False for a local server without authentication."""
    sends_service_tier: bool = False
    """True if the endpoint knows `service_tier`; then the tier that was priced is the tier that is asked for."""
    output_bound_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    server_errors: Literal["unknown", "unbilled"] = "unknown"
    """Whether a 5xx may have been billed; `unbilled` only where the provider documents it as free."""
    good_endings: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    """
    Finish reasons besides `stop` of answers that are whole, such as `eos` or `end_turn`.

    `null` stands for a reply without one. Every other ending is a failed attempt; see `callgate.domain.endings`.
    """
    unwraps: tuple[Literal["think", "fence"], ...] = ()
    """
    What is taken off an answer to a schema before it is checked.

    `think`: a block of thoughts before it, up to `</think>`. `fence`: a Markdown fence around it.
    """

    @field_validator("good_endings")
    @classmethod
    def _endings_are_free(cls, endings: tuple[str, ...]) -> tuple[str, ...]:
        if taken := sorted(MEANINGS.keys() & {ending.casefold() for ending in endings}):
            raise ValueError(
                f"{', '.join(taken)} can be no good ending: it has a meaning of its own"
            )
        return endings

    @field_validator("base_url")
    @classmethod
    def _is_read_as_meant(cls, url: str | None) -> str | None:
        """Half a password would be called as a host, and be quoted in an error."""
        if url is not None and (reason := misread(url)):
            raise ValueError(reason)
        return url


class PriceEntry(_Entry):
    """A price that overrides the maintained catalogue, in USD per million tokens."""

    provider: str
    model: str
    input_usd_per_million: UsdPerMillion
    output_usd_per_million: UsdPerMillion
    cached_input_usd_per_million: UsdPerMillion | None = None
    """None: cached input costs as much as any input."""
    cache_write_usd_per_million: UsdPerMillion | None = None
    reasoning_usd_per_million: UsdPerMillion | None = None
    request_usd: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """A fee per request, whatever its size."""
    source: str
    as_of: date


class OrgRetention(_Entry):
    """What one organisation agreed to."""

    bodies_days: Days


class Retention(_Entry):
    """How long what is kept is kept. An empty one keeps everything for ever."""

    bodies_days: Days | None = None
    """Days from the end of a call until its request, its replies and its links' arguments are removed."""
    log_months: Annotated[int, Field(ge=1, le=1_200)] | None = None
    """Whole months until the rows of `ai_call_log` are dropped; their sums stay. Bodies must go before."""
    unknown_days: Days = UNKNOWN_DAYS
    """Days that a bill nobody knows keeps its month of the log: so long it can be settled by hand."""
    orgs: dict[str, OrgRetention] = {}

    def body_ages(self) -> BodyAges:
        """The same as ages in seconds."""
        default_s = None if self.bodies_days is None else self.bodies_days * DAY_S
        return BodyAges(
            default_s, {org_id: o.bodies_days * DAY_S for org_id, o in self.orgs.items()}
        )

    def keys_outliving_log(self) -> Iterator[str]:
        """The keys whose bodies would hold up the dropping of the log."""
        if self.log_months is None:
            return
        days_max = self.log_months * MONTH_DAYS_MIN
        if self.bodies_days is None or self.bodies_days > days_max:
            yield "bodies_days"
        for org_id, org in self.orgs.items():
            if org.bodies_days > days_max:
                yield f"orgs.{org_id}.bodies_days"


class Catalogue(_Entry):
    """Everything operators declare. An empty one knows OpenAI and lets every call type use the defaults."""

    providers: dict[str, ProviderEntry] = {"openai": ProviderEntry(sends_service_tier=True)}
    default: CallTypePolicy = CallTypePolicy()
    call_types: dict[str, CallTypePolicy] = {}
    prices: tuple[PriceEntry, ...] = ()
    retention: Retention = Retention()

    def policy(self, call_type: str) -> CallTypePolicy:
        """The call type's own policy, or the default one."""
        return self.call_types.get(call_type, self.default)

    def good_endings(self, provider: str) -> tuple[str, ...]:
        """What a provider's entry adds to the good endings; nothing if there is no such provider."""
        entry = self.providers.get(provider)
        return entry.good_endings if entry else ()
