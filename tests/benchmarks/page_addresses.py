"""Every address of callgate's pages in Flower that a user of a large ledger would click."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from callgate.domain.call_words import WORDS
from worker.flower.cost_view import WORDS as DIMENSIONS

Rows = Callable[..., list[Any]]
Ask = Callable[[str], str]
ORG = "org-0001"
"""The largest; about a quarter of all rows."""
SMALL_ORG = "org-0059"
LINK = re.compile(r'href="(/[^"#]*)"')
VALUES = {
    "org": ORG,
    "type": "extraction",
    "model": "gpt-4o",
    "provider": "mistral",
    "state": "dead",
    "reason": "provider_error",
    "trace": "no-such-trace",
    "tier": "default",
    "kind": "repair",
    "outcome": "unknown",
    "since": "24h",
}
SEARCHES = (
    f"org:{ORG} state:dead",
    f"org:{ORG} since:30d",
    f"org:{SMALL_ORG}",
    f"org:{SMALL_ORG} state:dead",
    f"org:{SMALL_ORG} outcome:unknown",
    f"org:{ORG} type:summary model:gpt-4o",
    "state:succeeded",
    "state:rejected",
    "state:queued",
    "since:7d",
    "since:365d",
    "since:365d until:300d",
    "model:no-such-model",
    "type:no-such-type since:365d",
    "kind:repair outcome:failed provider:openai",
    "tier:no-such-tier",
)
FLOWER = ("/workers", "/tasks", "/broker")
"""Pages of Flower itself."""


def addresses(rows: Rows, ask: Ask) -> Iterator[str]:
    """Yield them. Some contain what a page or the ledger tells: ids, and links to older rows."""
    yield "/overview"
    yield from _calls(rows, ask)
    yield from _dead_letters(ask)
    yield from _redrives(rows)
    yield from _budgets()
    yield from _unknown(ask)
    yield from _costs()
    yield from ("/leases", "/actions", to("/actions", org=ORG), to("/actions", operator="nobody"))
    yield from FLOWER


def to(path: str, **query: object) -> str:
    """A path with a query."""
    return f"{path}?{urlencode(query)}"


def _calls(rows: Rows, ask: Ask) -> Iterator[str]:
    ((fingerprint, dead_id),) = rows(
        "SELECT error_fingerprint, call_id FROM llm_call WHERE state = 'dead' AND created_at < now() - interval '30 d'"
        " ORDER BY created_at DESC LIMIT 1"
    )
    ((long_id,),) = rows(
        "SELECT call_id FROM (SELECT * FROM llm_call ORDER BY created_at LIMIT 500) c ORDER BY attempt DESC LIMIT 1"
    )
    found = {**VALUES, "fp": fingerprint, "id": long_id, "until": datetime.now(UTC).date()}
    searches = ["", *(f"{name}:{found[name]}" for name in WORDS), *SEARCHES]
    for words in searches:
        yield to("/calls", q=words)
        yield to("/calls/scope", q=words)
    for words in ("", "state:dead", f"org:{ORG}"):
        yield from _older(ask, to("/calls", q=words))
    yield from (f"/calls/{call_id}.1" for call_id in (dead_id, long_id))


def _older(ask: Ask, path: str) -> Iterator[str]:
    """The second page of a list."""
    links = map(unescape, LINK.findall(ask(path)))
    yield from (link for link in links if re.search(r"[?&](older|after|after_at|at|before)=", link))


def _dead_letters(ask: Ask) -> Iterator[str]:
    for period in ("today", "7d", "30d", "ever"):
        yield to("/dead-letters", period=period)
    yield to("/dead-letters", period="ever", org=ORG)
    for show in ("refused", "links", "messages"):
        yield to("/dead-letters", show=show, period="ever")
    groups = (link for link in map(unescape, LINK.findall(ask("/dead-letters?period=ever"))))
    group = next(link for link in groups if link.startswith("/dead-letters/group"))
    yield group
    yield group.replace("period=ever", "period=30d")
    yield from _older(ask, group)


def _redrives(rows: Rows) -> Iterator[str]:
    yield from ("/redrives", "/redrives/new")
    planned: list[tuple[UUID]] = rows("SELECT id FROM redrive LIMIT 1")
    yield from (f"/redrives/{redrive_id}" for (redrive_id,) in planned)


def _budgets() -> Iterator[str]:
    yield from ("/budgets", "/budgets?order=name", to("/budgets", org=ORG))
    for window in ("day", "month"):
        yield to("/budgets/one", org=ORG, scope="org", window=window)
    yield to("/budgets/one", org=ORG, scope="org", window="day", limit="5")
    yield from ("/limits", "/pauses")
    yield to("/limits/breaker", provider="openai", model="gpt-4o")


def _unknown(ask: Ask) -> Iterator[str]:
    month_ago = datetime.now(UTC).date() - timedelta(days=30)
    yield "/unknown"
    for given in (
        {"org": ORG},
        {"org": SMALL_ORG},
        {"provider": "mistral"},
        {"model": "gpt-4o"},
        {"since": month_ago},
        {"until": month_ago},
        {"model": "no-such-model"},
    ):
        yield to("/unknown", **given)
    yield from _older(ask, "/unknown")
    links = map(unescape, LINK.findall(ask("/unknown")))
    yield next(link for link in links if link.startswith("/unknown/one"))
    yield "/unknown/csv"


def _costs() -> Iterator[str]:
    today = datetime.now(UTC).date()
    year = {"period": "own", "from": today - timedelta(days=364), "to": today}
    periods = [{"period": name} for name in ("today", "yesterday", "7d", "30d", "month")] + [year]
    for period in periods:
        for by in DIMENSIONS.values():
            yield to("/costs", **period, by=by)
        yield to("/costs/series", **period, by="org")
        yield to("/costs", **period, org=ORG)
    for by in DIMENSIONS.values():
        yield to("/costs/series", **year, by=by)
        yield to("/costs", **year, org=ORG, by=by)
    yield to("/costs", **year, by=",".join(DIMENSIONS.values()))
    yield to("/costs", **year, model="gpt-4o", kind="retry")
    yield to("/costs.csv", **year, by="org,model")
    yield to("/costs.csv", period="30d", by="org", days=1)
