"""
What may be kept of a provider's error: names from these lists, and sentences written here. None of the provider's text.

A provider knows keys and prompts and may quote them in any field, reversed, spaced or encoded. No filter finds all of
that. So the provider's text only selects one of the sentences below. Codes and parameters are kept if they are on a
list. Add a code to its list when it is missed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MESSAGE_CHARS_MAX = 2_000
"""How much of a provider's message is searched."""
PARAMETER_CHARS_MAX = 200
_PARTS = re.compile(r"[A-Za-z_]+|[0-9]+")

_CODES = """
aborted access_denied access_denied_exception account_deactivated already_exists array_above_max_length
array_below_min_length bad_request_error billing_error cancelled content_policy_violation data_loss
decimal_above_max_value decimal_below_min_value deployment_not_found empty_array engine_overloaded
integer_above_max_value integer_below_min_value internal_server_error internal_server_exception
invalid_api_key invalid_json invalid_json_schema invalid_organization invalid_prompt invalid_request
invalid_request_error invalid_schema invalid_type invalid_value ip_not_authorized json_parse_error
json_validate_failed missing_required_parameter model_decommissioned model_error_exception model_not_available
model_not_ready_exception model_overloaded not_found_error not_implemented operation_not_supported
organization_not_found out_of_range overloaded project_not_found quota_exceeded requests_per_day
requests_per_min resource_not_found_exception response_failed server_overloaded
service_quota_exceeded_exception service_unavailable_error service_unavailable_exception slow_down
string_above_max_length string_below_min_length throttled tokens_per_day tokens_per_min unavailable_error
unknown unknown_parameter unknown_url unsupported_country_region_territory unsupported_model
unsupported_parameter unsupported_value upstream_error user_not_found validation_error validation_exception
value_error
"""
CODES = frozenset(_CODES.split())
"""
Names of errors in snake case, besides those that mean a status (`error_body.STATUS_NAMES`).

Source: error codes and types of OpenAI, Azure OpenAI, Anthropic, Google, Amazon Bedrock, Groq, Mistral, vLLM and
llama.cpp (2026-11).
"""
_PARAMETERS = """
model messages role content name max_tokens max_completion_tokens max_output_tokens n temperature top_p seed stop
service_tier response_format json_schema schema strict type input include text format verbosity reasoning effort
tools tool_choice parameters system top_k stop_sequences thinking output_config cache_control
"""
PARAMETERS = frozenset(_PARAMETERS.split())
"""Names of fields in requests, as callgate sends them and as some providers call them."""
UNMISTAKABLE_PARAMETERS = (
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "service_tier",
    "response_format",
)
"""Parameters whose names have no other meaning in a message."""

HINTS = (
    (
        re.compile(r"json.?schema|response.?format|structured.?output|\bschema\b"),
        "it seems to be the response schema",
    ),
    (
        re.compile(r"model\b.{0,80}(does not exist|not found)|(no such|unknown|invalid) model"),
        "the model does not exist, or this key may not use it",
    ),
    (
        re.compile(r"unsupported|not support|unrecogni[sz]ed|unknown|not permitted|unexpected"),
        "a parameter, or its value, is not supported",
    ),
    (re.compile(r"\broles?\b|alternat"), "it seems to be the roles of the messages"),
    (re.compile(r"\bempty\b|at least one"), "a value is empty that must not be"),
    (re.compile(r"required|missing"), "a value is missing"),
    (
        re.compile(
            r"too (many|long|large|high|low|big|small)|at most|maximum|exceed|range|between"
        ),
        "a value is out of bounds",
    ),
)
"""Patterns in a provider's message, and the sentence for each. The first match counts."""

SENTENCES = {
    "authentication_failed": "the API key is not accepted",
    "bad_request": "the request is not accepted",
    "conflict": "the request conflicts with another one",
    "content_filtered": "the provider's content filter refused the input",
    "context_length_exceeded": "messages and max_output_tokens together exceed the model's context window",
    "insufficient_quota": "the account has no credit left, or is not active",
    "not_found": "the address or the model does not exist there",
    "permission_denied": "the API key may not do this",
    "proxy_failed": "a proxy refused the request",
    "rate_limited": "too many requests or tokens at the moment",
    "redirected": "the provider answered with a redirect, which is not followed",
    "rejected": "the request is not accepted",
    "request_timeout": "the provider waited too long for the request",
    "request_too_large": "the request alone exceeds a limit, so a retry cannot help",
    "server_error": "the provider failed, or is overloaded",
    "unprocessable": "the request is not accepted",
}
"""The sentence for each failure code that comes from an HTTP status."""


def parameter(error: Mapping[str, object]) -> str | None:
    """The request's field that an error is about, for example `messages[3].content`; None if it is not known."""
    name = error.get("param")
    if isinstance(name, str) and (path := _path(name[:PARAMETER_CHARS_MAX])):
        return path
    message = lower_message(error)
    return next((name for name in UNMISTAKABLE_PARAMETERS if name in message), None)


def hint(error: Mapping[str, object]) -> str | None:
    """The sentence of `HINTS` that the provider's message selects; None if no pattern matches."""
    message = lower_message(error)
    return next((sentence for pattern, sentence in HINTS if pattern.search(message)), None)


def lower_message(error: Mapping[str, object]) -> str:
    """The start of the provider's message in lower case, for comparison only: it may hold secrets."""
    message = error.get("message")
    return message[:MESSAGE_CHARS_MAX].lower() if isinstance(message, str) else ""


def _path(name: str) -> str:
    """The leading names of a path that are in `PARAMETERS`, and the index of a message."""
    path = ""
    for part in _PARTS.findall(name):
        if part in PARAMETERS:
            path += f".{part}" if path else part
        elif path == "messages" and part.isdigit() and len(part) <= len("999"):
            path += f"[{part}]"
        else:
            break
    return path
