"""The simulator as three providers, one for each protocol that it speaks, in one catalogue."""

from __future__ import annotations

PROTOCOLS = ("chat", "responses", "messages")
"""Names of providers. Each protocol has another model behind the same name, and that model's price."""
MODEL = "assistant"

CATALOGUE = """
[providers.chat]
preset = "openai"
base_url = "{base_url}"
models = {{ assistant = "gpt-5.5" }}
reasoning_fields = ["reasoning_content", "reasoning_details"]
needs_key = false
unlimited = true

[providers.responses]
protocol = "openai_responses"
preset = "openai"
base_url = "{base_url}"
models = {{ assistant = "gpt-5.5" }}
encrypted_reasoning = ["assistant"]
needs_key = false
unlimited = true

[providers.messages]
protocol = "anthropic"
preset = "anthropic"
base_url = "{base_url}"
path = "/messages"
models = {{ assistant = "claude-opus-5" }}
json_schema = "tool"
needs_key = false
unlimited = true

[default]
max_output_tokens_default = 200
deadline_s = 15
retry_wait_s = 0.1
retry_wait_max_s = 0.2
unknown_wait_s = 0.1
"""
