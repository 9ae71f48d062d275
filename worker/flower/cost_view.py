"""What the page of costs shows: which sums an address means, and where each of its links leads. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from callgate.domain.bounds import NAME_CHARS_MAX
from callgate.domain.errors import InvalidRequest
from callgate.domain.sums import BY_DAY, DIMENSIONS, NOTHING, CostFilter, CostLine
from worker.flower.periods import Span

WORDS = {
    "org_id": "org",
    "project": "project",
    "call_type": "type",
    "provider": "provider",
    "model": "model",
    "tier": "tier",
    "kind": "kind",
    "outcome": "outcome",
}
"""The dimensions as addresses have them."""
TITLES = {
    BY_DAY: "Day (UTC)",
    "org_id": "Organisation",
    "project": "Project",
    "call_type": "Call type",
    "provider": "Provider",
    "model": "Model",
    "tier": "Service tier",
    "kind": "Kind of attempt",
    "outcome": "Outcome",
}
NONE = "(none)"
"""How addresses and tables name the value of a dimension that is not known."""
PARTS = ("failed_nano_usd", "retry_nano_usd", "repair_nano_usd")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run."""


@dataclass(frozen=True, slots=True)
class CostView:
    """Which sums a page shows, and grouped by what."""

    which: CostFilter
    by: tuple[str, ...]
    span: Span

    @property
    def filters(self) -> dict[str, str]:
        """The dimensions that are narrowed, with their values."""
        set_ones = {name: getattr(self.which, name) for name in DIMENSIONS}
        return {name: value for name, value in set_ones.items() if value is not None}

    @property
    def words(self) -> dict[str, str]:
        """The arguments of the address of this view."""
        narrowed = {WORDS[name]: value or NONE for name, value in self.filters.items()}
        return {**self.span.words, **narrowed, "by": ",".join(WORDS[name] for name in self.by)}

    def narrowed(self, name: str, value: str | None) -> CostView:
        """This view of one value only, grouped by what is left."""
        which = _with(self.which, name, value or "")
        by = tuple(other for other in self.by if other != name)
        return replace(self, which=which, by=by or default_by(which))

    def widened(self, name: str) -> CostView:
        """This view with all values of a dimension."""
        return replace(self, which=_with(self.which, name, None))

    def grouped(self, name: str) -> CostView:
        """This view grouped by one dimension more, or by one less."""
        chosen = {*self.by} ^ {name}
        by = tuple(other for other in DIMENSIONS if other in chosen)
        return replace(self, by=by or default_by(self.which))

    def of(self, span: Span) -> CostView:
        """This view of another time."""
        return replace(
            self, span=span, which=replace(self.which, since=span.since, until=span.until)
        )

    @property
    def charted(self) -> str:
        """The dimension whose values a chart shows."""
        return self.by[0]


def default_by(which: CostFilter) -> tuple[str, ...]:
    """By what a view is grouped unless it says so: who spent it; of one organisation on what."""
    if which.org_id is None:
        return ("org_id",)
    names = ("call_type", "provider", "model")
    return tuple(n for n in names if getattr(which, n) is None) or ("kind", "outcome")


def view_of(word: Callable[[str], str], span: Span) -> CostView:
    """
    Read the arguments of an address.

    Raises:
        InvalidRequest: It names no dimension, or a value that is too long.
    """
    narrowed: dict[str, str] = {}
    for name, argument in WORDS.items():
        text = word(argument)
        if len(text) > NAME_CHARS_MAX or "\0" in text:
            raise InvalidRequest(f"there is no {TITLES[name].lower()} {text[:20]!r}...")
        if text:
            narrowed[name] = "" if text == NONE else text
    which = CostFilter(**narrowed, since=span.since, until=span.until)
    names = {argument: name for name, argument in WORDS.items()}
    asked = [part for part in word("by").split(",") if part]
    if unknown := [part for part in asked if part not in names]:
        raise InvalidRequest(f"{unknown[0][:20]!r} is not one of {', '.join(names)}")
    chosen = {names[part] for part in asked}
    by = tuple(name for name in DIMENSIONS if name in chosen)
    return CostView(which, by or default_by(which), span)


def total_of(lines: Sequence[CostLine]) -> CostLine:
    """All lines together."""
    parts = {n: sum(getattr(line, n) for line in lines) for n in ("succeeded", *PARTS)}
    gaps = max((line.gaps for line in lines), default=0)
    return CostLine(sum((line.used for line in lines), NOTHING), **parts, gaps=gaps)


def share_of(part: int, whole: int) -> str:
    """A part of an amount in percent; empty if there is nothing to compare with."""
    return f"{100 * part / whole:.0f} %" if whole > 0 else ""


def csv_lines(lines: Iterable[CostLine], by: Sequence[str]) -> Iterator[str]:
    """Lines as CSV with a heading. A cell that a spreadsheet would run begins with an apostrophe."""
    measures = [field.name for field in fields(NOTHING)]
    yield _csv_row([*by, *measures, "succeeded", *PARTS])
    for line in lines:
        groups = [_plain(getattr(line, name)) for name in by]
        used = asdict(line.used)
        rest = [getattr(line, name) for name in ("succeeded", *PARTS)]
        yield _csv_row([*groups, *(used[name] for name in measures), *rest])


def _with(which: CostFilter, name: str, value: str | None) -> CostFilter:
    changes: dict[str, Any] = {name: value}
    return replace(which, **changes)


def _plain(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _csv_row(cells: Sequence[object]) -> str:
    written = io.StringIO()
    csv.writer(written).writerow(cells)
    return written.getvalue()
