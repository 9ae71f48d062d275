"""
OpenAI's Responses protocol, without any state at the provider.

`openai_responses_adapter` is the port's implementation. `responses_request` writes the request, `responses_reply` reads
the reply, `turn_items` keeps what the next turn needs of an answer. OpenAI's SDK, its errors and the rules of `strict`
are those of `providers/openai`.
"""

ADAPTER = ("openai_responses_adapter", "OpenAIResponsesAdapter")
