"""
The catalogue: providers, call types, negotiated prices and retention, as operators declare them.

It is one TOML file (see `config/catalogue.toml`), read once at start by `adapters/catalogue_file.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from callgate.domain.access import pattern_fault
from callgate.domain.alert_rules import AlertRules
from callgate.domain.concurrency import CallsOf, ConcurrencyRule
from callgate.domain.endings import MEANINGS
from callgate.domain.endpoint import Endpoint
from callgate.domain.limits import MINUTE_S, Declaration, LimitRule, Measure
from callgate.domain.open_calls import OPEN_CALLS_MAX
from callgate.domain.price_entry import PriceEntry
from callgate.domain.requests import Effort
from callgate.domain.reserved_fields import RESERVED_FIELDS, plain_name
from callgate.domain.retention import UNKNOWN_DAYS, BodyAges
from callgate.domain.urls import url_fault

PositiveSeconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=0, le=36_500)]
DAY_S = 86_400
MONTH_MIN_DAYS = 28
Amount = Annotated[int, Field(ge=1, le=10**12)]
Calls = Annotated[int, Field(ge=1, le=10**6)]
HeaderDialect = Literal["openai", "anthropic", "groq", "azure", "none"]
RequestField = Literal[
    "n", "temperature", "top_p", "top_k", "seed", "stop", "response_schema", "service_tier", "tools", "tool_choice",
    "reasoning_effort", "thinking_tokens", "verbosity", "prompt_cache_key",
]  # fmt: skip
"""Fields of a request that not every provider knows."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CallTypePolicy(_Entry):
    """Limits of one call type's requests, and how often and how long they are tried."""

    models: tuple[str, ...] = ()
    """Allowed `provider/model` patterns (`openai/gpt-4o*`). Empty: every priced model of a known provider."""
    input_tokens_max: Annotated[int, Field(ge=1)] = 128_000
    """A request with more input tokens is refused at submit."""
    pages_max: Annotated[int, Field(ge=0)] = 200
    """A request whose `document_pages` are more is refused at submit."""
    max_output_tokens_default: Annotated[int, Field(ge=1)] | None = None
    """The bound of a request that has none. None: such a request is refused."""
    max_output_tokens_max: Annotated[int, Field(ge=1)] = 16_384
    """A request that may write more is refused at submit."""
    deadline_s: PositiveSeconds = 60.0
    """Time for one attempt, from before its hold to the last byte of the reply."""
    attempts_max: Annotated[int, Field(ge=1, le=100)] = 5
    """After so many attempts the call is dead."""
    worker_losses_max: Annotated[int, Field(ge=1, le=100)] = 3
    """After so many attempts whose worker was lost the call is dead: it may crash workers."""
    on_unknown: Literal["retry", "dead"] = "retry"
    """What follows an attempt whose bill is unknown: another attempt, or the call is dead."""
    unknown_attempts_max: Annotated[int, Field(ge=1, le=100)] = 2
    """Attempts that may end with an unknown bill. Each posts its whole hold."""
    unknown_wait_s: PositiveSeconds = 30.0
    """The wait after the first of them, doubled each time, so that an outage does not use them all up."""
    paid_failures_max: Annotated[int, Field(ge=1, le=100)] = 2
    """Attempts that may be paid and have no result (invalid output, an empty reply)."""
    repairs_max: Annotated[int, Field(ge=0, le=100)] = 1
    """
    How many of these attempts may ask the model to correct an answer that breaks its schema.

    The others ask the same again.
    """
    wait_max_s: Annotated[float, Field(gt=0, le=30 * DAY_S, allow_inf_nan=False)] = float(DAY_S)
    """How long a call waits in total for its provider, a place, held money, or paused. Then it is rejected, unpaid."""
    retry_wait_s: PositiveSeconds = 1.0
    """The longest wait before the second attempt; doubled for each further one. The wait is random below it."""
    retry_wait_max_s: PositiveSeconds = 60.0
    """The doubling ends here."""
    retry_after_max_s: PositiveSeconds = 600.0
    """A longer Retry-After of a provider is cut to this."""
    concurrency_max: Calls | None = None
    """How many calls of this type may run at a time, of each organisation. The others wait. None: any number."""

    def allows(self, provider: str, model: str) -> bool:
        """True if the call type may use this model; see `models`."""
        return not self.models or any(fnmatchcase(f"{provider}/{model}", p) for p in self.models)


class ProviderEntry(Endpoint):
    """One endpoint with one account, and how its dialect differs from OpenAI's."""

    protocol: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "openai"
    """The folder of its adapter: `openai` (chat completions), `openai_responses` or `anthropic`."""
    base_url: str | None = None
    """None: the endpoint of the protocol's author."""
    org_endpoints: tuple[str, ...] = ()
    """
    Which endpoints organisations may have instead of `base_url`, with an own key: `https://*.openai.azure.com/*`.

    Empty: none. See docs/security.md.
    """
    pricing_provider: str | None = None
    """The provider's id in the genai-prices package. None: its name here."""
    needs_key: bool = True
    """False for a local server without authentication."""
    sends_service_tier: bool = False
    """True if the endpoint knows `service_tier`. Then every request names the tier that its hold was priced at."""
    output_bound_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """How this server names the bound of its answer."""
    server_errors: Literal["unknown", "unbilled"] = "unknown"
    """The bill of a 5xx. Use `unbilled` only if the provider documents it as free."""
    good_endings: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    """
    Finish reasons of complete answers besides `stop`, for example `eos` or `end_turn`.

    `null` stands for a missing finish reason. With any other one the attempt fails; see `callgate.domain.endings`.
    """
    unwraps: tuple[Literal["think", "fence"], ...] = ()
    """
    What is removed from an answer before it is checked against its schema.

    `think`: a block of thoughts before it, up to `</think>`. `fence`: a Markdown fence around it.
    """
    json_schema: Literal["native", "tool", "prompt"] = "native"
    """
    How an answer is made to fit a response schema.

    `native`: by the field of the protocol. `tool`: the model must call a tool whose parameters are the schema.
    `prompt`: a system message asks for it. Each answer is checked in the same way.
    """
    rate_limit_headers: HeaderDialect = "openai"
    """
    Whose names the headers have that tell the account's limits; see `docs/flow-control.md`.

    With `none` they are not read. Then a limit is known only if it is declared, or after a refusal.
    """
    unlimited: bool = False
    """True for a server that refuses no request for its rate: its keys do not begin with few attempts under way."""
    counts_tokens: Literal["requested", "used"] = "requested"
    """
    What a limit of output tokens counts: what a request asks for at most, or what its answer has.

    OpenAI and Azure count what was requested, Anthropic what was written; see docs/flow-control.md for sources.
    """

    reasoning_fields: tuple[
        Literal["reasoning_content", "reasoning", "reasoning_details"], ...
    ] = ()
    """
    Where a server puts what the model thought into a chat completion's message.

    They come back in `LLMResult.reasoning`, and are sent on with the next turn, as DeepSeek needs for tools.
    """
    encrypted_reasoning: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = ()
    """
    Patterns of the models that are asked for encrypted reasoning, in OpenAI's Responses protocol.

    It comes back in `LLMResult.reasoning`, and is sent on with the next turn. Other models refuse to be asked.
    """
    cannot: tuple[RequestField, ...] = ("top_k", "thinking_tokens")
    """Fields of a request that it does not know. A request that sets one of them is refused at submit."""
    temperature_max: Annotated[float, Field(gt=0, le=2)] = 2.0
    """A request with a higher temperature is refused at submit."""
    efforts: tuple[Effort, ...] = get_args(Effort)
    """Which values of `reasoning_effort` it has."""
    thinking_tokens_min: Annotated[int, Field(ge=1)] = 1
    """A request with fewer `thinking_tokens` is refused at submit."""
    cache_marks_max: Annotated[int, Field(ge=1)] | None = None
    """How many marks of the cache (`Message.cache`) a request may have. None: it knows no marks and gets none."""
    system_first: bool = False
    """System and developer messages can stand only before all others, and one of those must follow."""
    object_arguments: bool = False
    """The arguments of a tool call that is sent on must be a JSON object, not any text."""
    object_schemas: bool = False
    """A response schema in a field of the protocol must be one of an object, also without `strict`."""
    extra_fields: tuple[str, ...] = ()
    """Which names `LLMRequest.extra` may have: fields of the provider's protocol that callgate does not know."""

    @model_validator(mode="after")
    def _org_endpoints_are_safe(self) -> Self:
        """Refuse patterns that could match what the operator did not mean."""
        for pattern in self.org_endpoints:
            if why := pattern_fault(pattern, self.base_url):
                raise ValueError(f"org_endpoints: {why}")
        return self

    @field_validator("extra_fields")
    @classmethod
    def _extra_fields_are_free(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse fields that callgate writes, or that could change what is paid for."""
        if taken := sorted(name for name in names if plain_name(name) in RESERVED_FIELDS):
            raise ValueError(f"extra_fields cannot have {', '.join(taken)}: callgate decides them")
        return names

    @field_validator("good_endings")
    @classmethod
    def _endings_are_free(cls, endings: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse finish reasons with a fixed meaning."""
        if taken := sorted(MEANINGS.keys() & {ending.casefold() for ending in endings}):
            raise ValueError(f"{', '.join(taken)} cannot be a good ending: its meaning is fixed")
        return endings

    @field_validator("base_url")
    @classmethod
    def _has_no_fault(cls, url: str | None) -> str | None:
        """Refuse a URL of which half a password would be parsed as a host, and quoted in an error."""
        if url is not None and (reason := url_fault(url)):
            raise ValueError(reason)
        return url


class LimitEntry(_Entry):
    """What one key of a provider may use. Each amount that is given is a limit of its own."""

    provider: str
    """A provider of the catalogue."""
    model: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\[\]]+$")] = "*"
    """A pattern with `*` and `?`."""
    credential: Annotated[str, Field(max_length=128)] = ""
    """Empty: the provider's own key. `*`: each organisation's own key. Else the key of that organisation."""
    shared: bool = False
    """True if all models that match share the limit. Otherwise each has its own."""
    per: Literal["minute", "day"] = "minute"
    """The time in which the amounts may be used."""
    requests: Amount | None = None
    """How many requests."""
    input_tokens: Amount | None = None
    """How many input tokens."""
    output_tokens: Amount | None = None
    """How many output tokens."""
    tokens: Amount | None = None
    """Input and output tokens together."""
    concurrency: Amount | None = None
    """Attempts under way at the same time."""

    def rules(self, *, counts_used: bool) -> Iterator[LimitRule]:
        """Its limits, one by one."""
        window_s = DAY_S if self.per == "day" else MINUTE_S
        for measure in Measure:
            if amount := getattr(self, measure.value):
                window = 0 if measure is Measure.CONCURRENCY else window_s
                yield LimitRule(
                    self.provider, self.model, self.credential, self.shared, measure, window, amount, counts_used
                )  # fmt: skip


class OrgRetention(_Entry):
    """Retention that one organisation agreed to."""

    bodies_days: Days
    """Instead of `bodies_days` of `[retention]`."""


class Retention(_Entry):
    """Retention periods. Without any, nothing is ever deleted."""

    bodies_days: Days | None = None
    """Days from the end of a call until its request, its replies and its links' arguments are deleted."""
    log_months: Annotated[int, Field(ge=1, le=1_200)] | None = None
    """Whole months until rows of `ai_call_log` are dropped. Their sums stay. Bodies must be deleted earlier."""
    unknown_days: Days = UNKNOWN_DAYS
    """Days for which an unknown bill keeps its month of the log, so that it can be settled by hand."""
    orgs: dict[str, OrgRetention] = {}

    def body_ages(self) -> BodyAges:
        """The retention of bodies as ages in seconds, the default and each organisation's."""
        default_s = None if self.bodies_days is None else self.bodies_days * DAY_S
        return BodyAges(
            default_s, {org_id: o.bodies_days * DAY_S for org_id, o in self.orgs.items()}
        )

    def keys_outliving_log(self) -> Iterator[str]:
        """Keys in this table that keep bodies longer than the log: they would block the dropping of its months."""
        if self.log_months is None:
            return
        max_days = self.log_months * MONTH_MIN_DAYS
        if self.bodies_days is None or self.bodies_days > max_days:
            yield "bodies_days"
        for org_id, org in self.orgs.items():
            if org.bodies_days > max_days:
                yield f"orgs.{org_id}.bodies_days"


CHECK_CALL_TYPE = "provider-check"
"""The call type of `callgate providers check`. Every catalogue takes it."""


class Organisation(_Entry):
    """What one organisation may have."""

    concurrency_max: Calls
    """How many of its calls may run at a time."""


class Organisations(_Entry):
    """What every organisation may have."""

    open_calls_max: Annotated[int, Field(ge=1, le=10**7)] = OPEN_CALLS_MAX
    """
    How many of its calls may be queued, running or waiting. More submissions are refused, or their clients wait.

    The workers publish it, so it need not be in the catalogues of clients.
    """
    concurrency_max: Calls | None = None
    """How many calls of each organisation may run at a time. The others wait. None: any number."""
    orgs: dict[str, Organisation] = {}
    """Organisations with other numbers."""


class Catalogue(_Entry):
    """Everything that operators declare. The default has one provider, `openai`, and one policy for all call types."""

    providers: dict[str, ProviderEntry] = {
        "openai": ProviderEntry(sends_service_tier=True, object_schemas=True)
    }
    default: CallTypePolicy = CallTypePolicy()
    call_types: dict[str, CallTypePolicy] = {}
    only_named_call_types: bool = False
    """Refuse a request whose call type is not in `call_types`: a misspelt one would have the rules of `default`."""
    prices: tuple[PriceEntry, ...] = ()
    retention: Retention = Retention()
    limits: tuple[LimitEntry, ...] = ()
    organisations: Organisations = Organisations()
    alerts: AlertRules = AlertRules()

    @model_validator(mode="after")
    def _limits_name_providers(self) -> Self:
        """Refuse a limit of a provider that is not there: it would limit nothing."""
        for entry in self.limits:
            if entry.provider not in self.providers:
                raise ValueError(f"limits name a provider that is not declared: {entry.provider}")
        return self

    def declaration(self) -> Declaration:
        """What it says about limits: of providers, and of organisations."""
        rules = (
            rule
            for entry in self.limits
            for rule in entry.rules(
                counts_used=self.providers[entry.provider].counts_tokens == "used"
            )
        )
        cautious = (name for name, entry in self.providers.items() if not entry.unlimited)
        counting = (n for n, entry in self.providers.items() if entry.counts_tokens == "used")
        return Declaration(
            rules=tuple(rules),
            cautious=tuple(sorted(cautious)),
            open_calls_max=self.organisations.open_calls_max,
            counting_used=tuple(sorted(counting)),
            concurrency=tuple(self._concurrency()),
        )

    def _concurrency(self) -> Iterator[ConcurrencyRule]:
        """How many calls may run at a time: nothing, if any number may."""
        organisations = {n: o.concurrency_max for n, o in sorted(self.organisations.orgs.items())}
        call_types = {n: policy.concurrency_max for n, policy in sorted(self.call_types.items())}
        for calls_of, of_each, by_name in (
            (CallsOf.ORGANISATION, self.organisations.concurrency_max, organisations),
            (CallsOf.CALL_TYPE, self.default.concurrency_max, call_types),
        ):
            for name, amount in {"": of_each, **by_name}.items():
                # Without a number for each, a name without one says nothing.
                if amount is not None or (name and of_each is not None):
                    yield ConcurrencyRule(calls_of, name, amount)

    def takes_call_type(self, call_type: str) -> bool:
        """False for one that is not named, if only those that are named are taken."""
        is_named = call_type in self.call_types or call_type == CHECK_CALL_TYPE
        return is_named or not self.only_named_call_types

    def policy(self, call_type: str) -> CallTypePolicy:
        """The call type's own policy, else the default."""
        return self.call_types.get(call_type, self.default)

    def good_endings(self, provider: str) -> tuple[str, ...]:
        """The `good_endings` of a provider; empty for an unknown provider."""
        entry = self.providers.get(provider)
        return entry.good_endings if entry else ()
