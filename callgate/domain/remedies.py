"""What an operator should do about a failure or a rejection, by its code."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

CREDENTIALS_PREFIX = "CALLGATE_WORKER__CREDENTIALS__"
UNKNOWN_CODE = "Look at the call: `callgate calls show`; report a code that is not documented."
NOT_NEEDED = "Nothing: the call is tried again."
MAY_BE_BILLED = "Its bill is unknown and counts in full: `callgate unknown list`."

_KEY = "Replace the key: {key}. {again}"
_NETWORK = "Check host, port, network, DNS and proxy from the worker to the provider, and its status page. {later}"
_REQUEST = "Correct the request; a retry brings the same. `callgate dead-letters show` has it."
_CATALOGUE = "Correct the provider in the catalogue, and restart the workers. {later}"
_PROVIDER = "Look at the provider's status page. {later}"
_REPORT = "Report it, with the ids of this line."
_REDRIVE_REFUSED = (
    "Refused calls are not tried again:"
    " `callgate dead-letters redrive --refused --end-reason {code} --reason ...`."
)

REMEDIES = {
    # Refusals of a provider, from an HTTP status.
    "authentication_failed": _KEY,
    "bad_request": _REQUEST,
    "conflict": NOT_NEEDED,
    "content_filtered": "Nothing, or change the input: the provider's filter refused it.",
    "context_length_exceeded": "Shorten the input or max_output_tokens, or use a model with a larger context.",
    "insufficient_quota": "Pay, or raise the limit of the account at the provider. {again}",
    "not_found": "Check the model's name, and base_url in the catalogue.",
    "permission_denied": "Give the key the right to use this model, or use another key: {key}. {again}",
    "proxy_failed": _NETWORK,
    "rate_limited": "Nothing, or declare the provider's limits in the catalogue: docs/flow-control.md.",
    "redirected": "Set base_url in the catalogue to the address that the provider redirects to.",
    "rejected": _REQUEST,
    "request_timeout": _NETWORK,
    "request_too_large": _REQUEST,
    "server_error": _PROVIDER,
    "unprocessable": _REQUEST,
    # Nothing was sent.
    "client_failed": "Run `callgate doctor` in the worker's environment: its HTTP client cannot be made.",
    "connect_timeout": _NETWORK,
    "connection_failed": _NETWORK,
    "deadline_before_send": "If it persists, the worker is overloaded: start more workers.",
    "dns_failed": _NETWORK,
    "endpoint_refused": "Allow the organisation's endpoint in `org_endpoints`, or correct its .url file.",
    "inexpressible": "Change the request, or send it to a provider whose protocol can say it.",
    "invalid_address": _CATALOGUE,
    "lease_before_send": "If it persists, look at Postgres and the worker's CPU: the lease is renewed late.",
    "missing_credentials": "Give the worker a key: {key}. {again}",
    "not_sent": _NETWORK,
    "superseded_before_send": NOT_NEEDED,
    "tls_failed": "Check the provider's certificate, and the certificates that the worker trusts. {later}",
    # Something was sent, and no usable answer came.
    "broken_off": _PROVIDER,
    "connection_lost": _NETWORK,
    "empty_reply": _PROVIDER,
    "invalid_response": _PROVIDER,
    "reply_too_large": _REQUEST,
    "timeout": "Raise deadline_s of the call type if the model needs longer; else see the provider's status.",
    "unexpected_error": _REPORT,
    "worker_lost": "Find out why the worker ended: memory, node, deployment. See `workers.lost`.",
    # An answer came and is of no use.
    "invalid_output": "Simplify the schema, allow repairs (repairs_max), or use another model.",
    "output_truncated": "Raise max_output_tokens.",
    "output_unchecked": "Check the CPU and memory of the log workers; then redrive.",
    "refused_by_model": "Nothing, or change the prompt: the model declined to answer.",
    "schema_too_costly": "Simplify the schema: checking it takes too long.",
    "unknown_ending": "If this finish reason is good, add it to good_endings of the provider.",
    # The ledger.
    "attempt_unreadable": _REPORT,
    "claim_refused": _REPORT,
    "reply_not_stored": _REPORT,
    "settlement_refused": _REPORT,
    "unreadable_request": "Submit it again; look for other software that writes to the tables.",
    # Rejections.
    "budget_exhausted": f"Raise the limit with `{{set}}`. {_REDRIVE_REFUSED}",
    "budget_held": "Nothing: the call waits for money that other calls hold.",
    "budget_too_small": "One call may cost more than the whole limit, so waiting does not help: raise the limit to at"
    f" least {{needed}} with `{{set}}`, or lower max_output_tokens. {_REDRIVE_REFUSED}",
    "budget_no_period": "Set the budget again with a time zone that Postgres knows.",
    "budget_not_configured": "Set a budget with `callgate budgets set`, or CALLGATE_WORKER__DEFAULT_DAILY_USD.",
    "concurrency_limited": "Raise how many calls of the organisation may run, or wait_max_s.",
    "deadline_passed": "Nothing, or start more workers: it was not sent before its start_within_s.",
    "exceeds_provider_limit": "Make the request smaller, or correct the limit in the catalogue.",
    "paused": "Resume with `callgate resume`, or raise wait_max_s; then submit again.",
    "provider_unavailable": f"Look at `callgate breakers list` and the provider's status page. {_REDRIVE_REFUSED}",
    "unknown_provider": "Give all workers the same catalogue, with this provider.",
    # Why a call waits.
    "large": "Nothing: it waits for memory. If it persists, raise CALLGATE_WORKER__REQUEST_MEMORY_MAX_BYTES.",
    "locked": NOT_NEEDED,
    # Gates that have changed since the call was submitted.
    "input_too_large": _REQUEST,
    "invalid_request": _REQUEST,
    "invalid_schema": _REQUEST,
    "missing_output_bound": _REQUEST,
    "too_many_pages": _REQUEST,
    "unknown_model": "Allow the model in the call type of the catalogue, or submit with another.",
    "unpriced_model": "Add a price of this model to the catalogue.",
}


@dataclass(frozen=True, slots=True)
class Concerns:
    """What a failure is about; what is not known is empty."""

    provider: str = ""
    model: str = ""
    credential: str = ""
    """The organisation whose own key it is; empty: the provider's."""
    fingerprint: str = ""
    """What its dead calls have in common."""
    needed: str = ""
    """The amount that a limit needs at least."""
    org_id: str = ""
    """Whose budget it is."""
    call_type: str = ""
    """The call type whose budget it is; empty: the organisation's own, or not known."""
    is_open: bool = False
    """Whether a breaker is open because of it."""


NOTHING_KNOWN = Concerns()


def remedy_of(code: str, about: Concerns = NOTHING_KNOWN, *, is_unknown: bool = False) -> str:
    """What to do about a code, with the exact commands; with an unknown bill also where to find that."""
    remedy = REMEDIES.get(code, UNKNOWN_CODE).format(
        key=key_todo(".".join(filter(None, (about.provider, about.credential)))),
        again=" ".join((_close(about), redrive_todo(about))),
        later=_later(about),
        code=code,
        set=_set_budget(about),
        needed=about.needed or "what the error of the call says (`callgate calls show`)",
    )
    return f"{remedy} {MAY_BE_BILLED}" if is_unknown else remedy


def key_todo(name: str, *, has_folder: bool | None = None) -> str:
    """
    Where the key of a provider goes.

    Args:
        name: `provider` or `provider.org`; empty: not known.
        has_folder: Whether the worker has a folder of secrets; None: not known.
    """
    provider, dot, org_id = (name or "PROVIDER").partition(".")
    variable = f"set {CREDENTIALS_PREFIX}{provider.upper()}{dot}{org_id} and restart the worker"
    file = f"put it into the file {provider}{dot}{org_id} of CALLGATE_WORKER__CREDENTIALS_DIR"
    if has_folder is None:
        return (
            f"{variable}; or, if the worker has such a folder, {file}, which a running worker reads"
        )
    return f"{file}; a running worker reads it" if has_folder else variable


def _set_budget(about: Concerns) -> str:
    words = [about.org_id] if about.org_id else []
    words += ["--call-type", about.call_type] if about.call_type else []
    return shlex.join(["callgate", "budgets", "set", *words])


def _close(about: Concerns) -> str:
    """A probe closes the breaker too, ten minutes later at most."""
    words = ["callgate", "breakers", "close"]
    words += ["--provider", about.provider or "PROVIDER", "--model", about.model or "MODEL"]
    words += ["--credential", about.credential] if about.credential else []
    return f"Then `{shlex.join([*words, '--reason', 'mended'])}`, so that waiting calls are sent at once."


def redrive_todo(about: Concerns = NOTHING_KNOWN) -> str:
    """How calls that died are sent again."""
    which = f" --fingerprint {about.fingerprint}" if about.fingerprint else ""
    first = "" if which else " (`callgate dead-letters summary` says which)"
    return f"Calls that died are not tried again: `callgate dead-letters redrive{which} --reason ...`{first}."


def _later(about: Concerns) -> str:
    """What becomes of the calls when the cause has gone."""
    waiting = (
        "A probe closes the breaker then, and waiting calls are sent. " if about.is_open else ""
    )
    return waiting + redrive_todo(about)
