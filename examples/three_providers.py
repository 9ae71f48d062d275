"""
One pipeline on three providers, each with another protocol: the names change, nothing else does.

    python -m examples.three_providers "Invoice INV-7 of 2026-03-14, total 120.00 EUR"

The catalogue says what each provider is. Answers, tokens and costs have one form.
"""

import sys

from pydantic import BaseModel

from callgate import CallFailed, Client, LLMRequest, LLMResult

MODELS = {
    "openai": "gpt-4o-mini",
    "openai-responses": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
}
PATIENCE_S = 60.0


class Invoice(BaseModel):
    """What is extracted, from any provider."""

    number: str
    total: float


def extract(client: Client, provider: str, text: str) -> LLMResult:
    """The pipeline: nothing in it depends on the provider."""
    return client.submit(
        LLMRequest(
            org_id="acme",
            call_type="extraction",
            provider=provider,
            model=MODELS[provider],
            messages=[{"role": "user", "content": f"{text}\n\nExtract number and total as JSON."}],
            response_schema=Invoice,
        )
    ).get(PATIENCE_S)


def first_answer(client: Client, text: str) -> LLMResult:
    """Ask the next provider if one has given up: a few lines of your own, because you know what may follow what."""
    for provider in MODELS:
        try:
            return extract(client, provider, text)
        except CallFailed as error:
            print(f"{provider}: {error.failure_code}")
    raise RuntimeError("no provider has answered")


def main(text: str) -> None:
    """Ask all three, then the first that answers."""
    with Client.from_env() as client:
        for provider in MODELS:
            result = extract(client, provider, text)
            print(f"{provider}: {result.parsed!r} by {result.model}, {result.cost_usd} USD")
        print(f"first: {first_answer(client, text + ' (copy)').model}")


if __name__ == "__main__":
    main(sys.argv[1])
