"""Write docs/log-events.md from the table of events: `python -m tests.support.log_events_page`."""

from __future__ import annotations

from pathlib import Path

from callgate.domain.log_events import SECTIONS, Event, Section

PAGE = Path(__file__).parents[2] / "docs" / "log-events.md"
INTRODUCTION = """\
# Log events

Every line that callgate logs has an `event`, a level, the logger's name and a time; `CALLGATE_WORKER__LOG_JSON=true`
writes lines as JSON. An event is a noun and what happened to it: `noun.past_participle`. Some events name a state
instead: `*.unavailable` and `*.ledger_unavailable` say what did not answer. Names and fields are stable within a minor
version; new ones may be added. Lines of Celery and other libraries have their own text as `event`, and are not listed.
No event quotes a prompt, an answer, the text of a provider or a message of the broker.

Fields that several events share: `reason` says why, in the words of the error or of the rule; `org_id` is the
organisation; `call_id`, `attempt_id`, `task_id` and `submission_id` identify rows of the ledger; `trace_id` is the
caller's; `cost` is what was posted; `count` is how many; `todo` says what to do, and is in every line of level warning
and above.

Lines that repeat are counted. The first line of a cause is written at once, with `count` 1. Those that follow within a
minute are counted, and the newest of them is written with the count. So a wrong key is one line and not a thousand; the
ledger has each call (`callgate dead-letters summary`). Which events are counted can be seen by their field `count`.

This page is written from `callgate/domain/log_events` by `python -m tests.support.log_events_page`.
"""
HEAD = "| event | level | fields | meaning | what to do |\n|---|---|---|---|---|\n"


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "".join(_section(section) for section in SECTIONS)


def _section(section: Section) -> str:
    return f"\n## {section.title}\n\n{HEAD}" + "".join(_row(event) for event in section.events)


def _row(event: Event) -> str:
    names = (*event.fields, "count") if event.counted_by else event.fields
    fields = ", ".join(f"`{name}`" for name in names)
    cells = (f"`{event.name}`", event.level, fields, event.meaning, event.remedy)
    return "| " + " | ".join(cells).replace("|  |", "| |") + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
