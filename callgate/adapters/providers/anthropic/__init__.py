"""
Anthropic's messages, also of compatible servers: the dialect only. Everything else is in `providers/http`.

`anthropic_adapter` is the port's implementation. `messages_request` writes the request, `message_reply` reads the
reply, `sdk_client` and `sdk_errors` are about Anthropic's SDK. `presets.toml` declares what the protocol can express.
"""

ADAPTER = ("anthropic_adapter", "AnthropicAdapter")
