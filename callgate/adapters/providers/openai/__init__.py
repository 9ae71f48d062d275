"""
OpenAI's chat completions, also of compatible servers: the dialect only. Everything else is in `providers/http`.

`openai_adapter` is the port's implementation. `chat_request` writes the request, `chat_reply`, `usage` and
`answer_wrapping` read the reply, `strict_schema` decides about `strict`, `sdk_errors` classifies the SDK's exceptions.
"""
