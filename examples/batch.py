"""
A batch: questions from a JSONL file, answers into another, and the progress on stderr.

    python -m examples.batch questions.jsonl answers.jsonl

A line is `{"id": "1", "question": "..."}`. The program may be stopped at any time and run again from the first line:
what was answered is not paid again. Answers are written in the order in which the calls end.
"""

import json
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

from callgate import (
    BudgetRefused,
    CallFailed,
    CallRejected,
    Client,
    Handle,
    LLMRequest,
    Priority,
)


def request_for(question: str) -> LLMRequest:
    """The request of one line."""
    return LLMRequest(
        org_id="acme",
        call_type="batch",
        provider="openai",
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        max_output_tokens=200,
    )


def answer_of(handle: Handle) -> dict[str, str]:
    """The answer of a call that has ended, or why it has none."""
    try:
        result = handle.get(timeout=0)
    except (BudgetRefused, CallFailed, CallRejected) as error:
        return {"error": error.code, "message": str(error)}
    return {"answer": result.text, "cost_usd": str(result.cost_usd)}


def main(questions: Path, answers: Path) -> None:
    """Submit all lines, and write each answer when it is there."""
    lines = [json.loads(line) for line in questions.read_text("utf-8").splitlines()]
    requests = [request_for(line["question"]) for line in lines]
    with Client.from_env() as client, answers.open("w", encoding="utf-8") as output:
        worst_usd = Decimal(client.estimate(requests).worst_case_nano_usd) / 10**9
        print(f"{len(lines)} lines, at most {worst_usd:.6f} USD", file=sys.stderr)
        # Bulk calls are sent after all others. If too many are open, the client waits.
        handles = client.submit_many(requests, priority=Priority.BULK, on_busy="wait")
        ids = defaultdict(list)  # equal questions are one call, with one task id
        for handle, line in zip(handles, lines, strict=True):
            ids[handle.task_id].append(line["id"])
        calls = {handle.task_id: handle for handle in handles}
        cost_usd = Decimal(0)
        for number, handle in enumerate(client.as_completed(calls.values()), start=1):
            answer = answer_of(handle)
            for line_id in ids[handle.task_id]:
                output.write(json.dumps({"id": line_id, **answer}, ensure_ascii=False) + "\n")
            cost_usd += Decimal(answer.get("cost_usd", 0))
            print(f"\r{number} of {len(calls)} calls, {cost_usd:.6f} USD", end="", file=sys.stderr)
        print(file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
