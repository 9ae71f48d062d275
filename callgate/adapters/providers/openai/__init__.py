"""
OpenAI's chat completions, also of compatible servers: the dialect only. Everything else is in `providers/http`.

`openai_adapter` is the port's implementation. `chat_request` writes the request, `chat_reply` reads the reply,
`sdk_client` and `sdk_errors` are about OpenAI's SDK.
"""

ADAPTER = ("openai_adapter", "OpenAIAdapter")
