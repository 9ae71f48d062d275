"""
What is kept of a provider's error: words of these lists, and sentences of ours. Nothing it wrote itself.

A provider has keys and prompts, and may quote them in any field, backwards, spaced or encoded: no filter finds all.
So its text only chooses which of our sentences is told. Codes and parameters are told if they are on a list; a code
that is missed there belongs onto it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

WORDS_READ_MAX = 2_000
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
What providers call their errors, beside the names that mean a status; as `openai_refusals` spells them.

Source: error codes and types of OpenAI, Azure OpenAI, Anthropic, Google, Amazon Bedrock, Groq, Mistral, vLLM and
llama.cpp (2026-11).
"""
_PARAMETERS = """
model messages role content name max_tokens max_completion_tokens max_output_tokens n temperature top_p seed stop
service_tier response_format json_schema schema strict type
"""
PARAMETERS = frozenset(_PARAMETERS.split())
"""The names in the requests that are sent, and a few that others have for them."""
TELLING = (
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "service_tier",
    "response_format",
)
"""The parameters that a text can hardly mean as anything else."""

HINTS = (
    (
        re.compile(r"json.?schema|response.?format|structured.?output|\bschema\b"),
        "it is about the response schema",
    ),
    (
        re.compile(r"model\b.{0,80}(does not exist|not found)|(no such|unknown|invalid) model"),
        "it knows no such model, or this key may not use it",
    ),
    (
        re.compile(r"unsupported|not support|unrecogni[sz]ed|unknown|not permitted|unexpected"),
        "a parameter, or its value, is not supported",
    ),
    (re.compile(r"\broles?\b|alternat"), "it is about the roles of the messages"),
    (re.compile(r"\bempty\b|at least one"), "something is empty that must not be"),
    (re.compile(r"required|missing"), "something is missing"),
    (
        re.compile(
            r"too (many|long|large|high|low|big|small)|at most|maximum|exceed|range|between"
        ),
        "a value is out of bounds",
    ),
)
"""What the words of a refusal seem to be about; the first that fits is told."""

SENTENCES = {
    "authentication_failed": "the API key is not accepted",
    "bad_request": "the request is not accepted",
    "conflict": "it conflicts with another request",
    "content_filtered": "a filter of the provider's refused the input",
    "context_length_exceeded": "messages and max_output_tokens are together more than the model can have",
    "insufficient_quota": "the account has no credit left, or is not active",
    "not_found": "the provider knows no such address or model",
    "permission_denied": "the API key may not do this",
    "proxy_failed": "a proxy refused the request",
    "rate_limited": "too many requests or tokens for now",
    "redirected": "it was sent elsewhere, which is not followed",
    "rejected": "the request is not accepted",
    "request_timeout": "the provider waited too long",
    "request_too_large": "the request alone is above a limit, so that no waiting helps",
    "server_error": "the provider failed, or is overloaded",
    "unprocessable": "the request is not accepted",
}
"""What each failure of a status means, in our words."""


def parameter(error: Mapping[str, object]) -> str | None:
    """What of the request a refusal is about, as far as its name is one of ours: `messages[3].content`."""
    name = error.get("param")
    if isinstance(name, str) and (path := _path(name[:PARAMETER_CHARS_MAX])):
        return path
    words = words_of(error)
    return next((name for name in TELLING if name in words), None)


def hint(error: Mapping[str, object]) -> str | None:
    """What its words seem to be about, in our words."""
    words = words_of(error)
    return next((told for pattern, told in HINTS if pattern.search(words)), None)


def words_of(error: Mapping[str, object]) -> str:
    """The provider's words in small letters, to be compared with, not to be told."""
    words = error.get("message")
    return words[:WORDS_READ_MAX].lower() if isinstance(words, str) else ""


def _path(name: str) -> str:
    """The names at its start that are ours; an index, if it is the one of a message."""
    path = ""
    for part in _PARTS.findall(name):
        if part in PARAMETERS:
            path += f".{part}" if path else part
        elif path == "messages" and part.isdigit() and len(part) <= len("999"):
            path += f"[{part}]"
        else:
            break
    return path
