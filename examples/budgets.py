"""
Budgets that bite: one call type of a customer has spent its money, the other goes on.

    callgate budgets set acme --daily-usd 5
    callgate budgets set acme --call-type chat --daily-usd 0.0005
    python -m examples.budgets

A call must fit into the budget of its organisation and into that of its call type. Its worst case is held before it is
sent, so concurrent calls cannot spend the same money twice.
"""

from callgate import BudgetRefused, Client, LLMRequest

CALLS = {"chat": 12, "extraction": 3}


def request_for(call_type: str, number: int) -> LLMRequest:
    """One of several requests of a call type."""
    return LLMRequest(
        org_id="acme",
        call_type=call_type,
        provider="openai",
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": f"{call_type}, number {number}"}],
        max_output_tokens=200,
        # `reject` ends the call with an error. With `wait` it is sent when the next period begins.
        on_budget="reject",
    )


def main() -> None:
    """Submit the calls of both types, and say how they ended."""
    with Client.from_env() as client:
        for call_type, count in CALLS.items():
            handles = client.submit_many(request_for(call_type, n) for n in range(count))
            answered, refusal = 0, None
            for handle in client.as_completed(handles):
                try:
                    handle.get(timeout=0)
                    answered += 1
                except BudgetRefused as error:
                    refusal = error
            print(f"{call_type}: {answered} of {count} answered")
            if refusal is not None:
                print(f"  {refusal.code}: {refusal}")
        for budget in client.operations.budgets("acme"):
            spent, limit = (n / 10**9 for n in (budget.spent_nano_usd, budget.limit_nano_usd))
            print(f"{budget.scope}: spent {spent:.6f} of {limit:.6f} USD per {budget.window}")


if __name__ == "__main__":
    main()
