"""
The names that `LLMRequest.extra` can never have: what callgate decides, and what changes the price of a request.

Servers have names of their own for the same thing, and may take both: llama.cpp's `n_predict` wins over `max_tokens`.
Also, some servers ignore case, and some read `maxTokens` as `max_tokens`.
"""

from __future__ import annotations

import re

_NOT_PLAIN = re.compile(r"[\W_]")


def plain_name(name: str) -> str:
    """A name without case and without what joins its words: `Max-Tokens` and `maxTokens` are `maxtokens`."""
    return _NOT_PLAIN.sub("", name.casefold())


_NAMES = (
    # Model and provider; also lists of them to fall back to.
    "model", "models", "model_id", "model_name", "model_uri", "engine", "fallbacks", "fallback_models", "route",
    "provider", "provider_options", "deployment", "deployment_id",
    # The input, and what is kept of it at the provider.
    "messages", "input", "system", "instructions", "prompt", "prompt_id", "conversation", "previous_response_id",
    "store", "background", "background_options", "container", "metadata", "context_management", "include",
    # The output bound, its number and its form.
    "max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample", "max_length",
    "max_gen_len", "n_predict", "num_predict", "n", "n_cmpl", "best_of", "use_beam_search", "candidate_count",
    "num_completions", "num_generations", "num_return_sequences", "stream", "streaming", "stream_options",
    "response_format", "output_format", "output_config", "text", "thinking", "thinking_config", "thinking_budget",
    "thinking_budget_tokens", "reasoning", "reasoning_effort", "modalities", "audio", "truncation",
    # Tools, which may cost money of their own.
    "tools", "tool_choice", "tool_config", "functions", "function_call", "plugins", "web_search", "web_search_options",
    "mcp_servers", "max_tool_calls", "search_parameters", "enable_search", "data_sources", "documents",
    "compound_custom",
    # Prices: tiers, regions, times of caches; and predicted output, which is billed without being an answer.
    "service_tier", "speed", "inference_geo", "prompt_cache_retention", "prompt_cache_options", "cache_control",
    "cached_content", "prediction",
    # Objects in which some servers accept any of these.
    "extra_body", "google", "options", "parameters", "generation_config", "sampling_params",
)  # fmt: skip
RESERVED_FIELDS = frozenset(map(plain_name, _NAMES))
"""As `plain_name` writes them."""
