"""Write docs/doctor.md from the table of checks: `python -m tests.support.doctor_page`."""

from __future__ import annotations

from pathlib import Path

from callgate.domain.doctor_checks import CHECKS, CheckEntry
from callgate.services.doctor import CHECKS_MAX_S
from callgate.services.figure_checks import LATE_S

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
INTRODUCTION = f"""\
# The doctor

<!-- not run: commands to choose from; tests/unit/test_docs_blocks.py parses them -->
```console
callgate doctor                        # what is worst is printed last, with what to do below it
callgate doctor --json                 # for programs
callgate doctor --strict               # for a deployment that accepts no warning
callgate doctor --model groq/llama-3.1-8b-instant
```

It checks an installation and says what to do. Run it where a worker runs and with a worker's login: keys, folders and
variables are those of its own environment. With another login it says what that login may not see. It changes nothing,
sends no call, and prints no key, password, prompt or answer.

| exit code | meaning |
|---|---|
| 0 | No check fails. There may be warnings. |
| 1 | A check fails: calls do not run, or money may be counted wrongly. |
| 2 | The client's settings cannot work; nothing else was checked. Also if the command line is wrong. |
| 3 | With `--strict`: no check fails, and one warns. |

With `--json` it prints an array in the order of the checks. Each finding has `name`, `status` (`ok`, `warn` or `fail`),
`sentence` and `todo` (empty if `ok`). Names, statuses and fields are stable within a minor version; fields and checks
may be added. The words of a sentence may change.

Every check is bounded: by the timeout of its service (`CALLGATE_LEDGER_TIMEOUT_S`, `CALLGATE_BROKER_TIMEOUT_S`), and by
five seconds for a provider; providers are asked at the same time. After {CHECKS_MAX_S:.0f} s no other check begins.
What is read of the ledger is bounded too, and does not grow with the log. "Late" is {LATE_S:.0f} s everywhere.

A check that needs another one is left out if that one failed: without a database nothing is said about partitions.

This page is written from `callgate/domain/doctor_checks.py` by `python -m tests.support.doctor_page`.

| check | what it looks at | what to do |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "".join(_row(entry) for entry in CHECKS)


def _row(entry: CheckEntry) -> str:
    return f"| `{entry.name}` | {entry.meaning} | {entry.todo} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
