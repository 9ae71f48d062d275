"""`callgate costs`: what calls used, what collapsing saved, what retries, failures, repairs and unknown bills cost."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from callgate.cli.options import (
    AsJson,
    AttemptKindOption,
    AttemptOutcome,
    CallType,
    Model,
    Org,
    Provider,
    Tier,
    with_options,
)
from callgate.cli.output import client_of, print_json, print_note, print_table
from callgate.cli.periods import Period, period
from callgate.cli.unknown_names import point_out
from callgate.domain.budgets import usd
from callgate.domain.sums import BY_DAY, DEFAULT_BY, DIMENSIONS, NOTHING, CostFilter, CostLine

GROUPS = {name.removesuffix("_id").replace("_", "-"): name for name in (BY_DAY, *DIMENSIONS)}
"""The words of `--by`, and what they group by."""
MEASURED = (
    *(">calls", ">attempts", ">dup", ">tokens in", ">out", ">spent", ">saved"),
    *(">retries", ">failures", ">repairs", ">unknown", ">mean ms"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(costs)


def cost_filter(
    org: Org = None,
    project: Annotated[
        str | None, typer.Option("--project", help="The project; empty: those without one.")
    ] = None,
    call_type: CallType = None,
    provider: Provider = None,
    model: Model = None,
    tier: Tier = None,
    kind: AttemptKindOption = None,
    outcome: AttemptOutcome = None,
) -> CostFilter:
    """The options that choose what is summed up."""
    return CostFilter(org, project, call_type, provider, model, tier, kind, outcome)


def parse_groups(text: str) -> list[str]:
    """Parse names to group by, separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(GROUPS)}")
    return [GROUPS[name] for name in names]


@with_options(which=cost_filter, when=period)
def costs(
    context: typer.Context,
    which: CostFilter,
    when: Period,
    by: Annotated[
        Any,
        typer.Option(
            "--by",
            parser=parse_groups,
            metavar="NAMES",
            help=f"Group by these, separated by commas: {', '.join(GROUPS)} (day is in UTC).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Show what attempts used and cost, and what collapsing duplicates saved.

    Times are counted in whole quarter hours, by when an attempt began. `unknown` is what attempts with an unknown bill
    have posted: their whole holds. A `+?` says that tokens of some paid attempts are not known.

    JSON: an array; each line has the dimensions it is grouped by, the fields of used, and the others of a CostLine.
    """
    names = [name for name in (BY_DAY, *DIMENSIONS) if name in (by or DEFAULT_BY)]
    with client_of(context) as client:
        since, until = when.of(which.org_id, client)
        lines = client.operations.costs(replace(which, since=since, until=until), names)
        if not lines:
            point_out(client, which.org_id, which.call_type)
    if as_json:
        print_json([cost_fields(line, names) for line in lines])
        return
    headings = tuple(name.removesuffix("_id").replace("_", " ") for name in names)
    rows = [_row(line, names) for line in lines]
    if len(rows) > 1:
        rows.append(("total", *[""] * (len(names) - 1), *_measured(_total(lines))))
    print_table((*headings, *MEASURED), rows, "nothing was used")
    _print_notes(lines)


def cost_fields(line: CostLine, names: list[str]) -> dict[str, Any]:
    """A line as JSON: its groups, then what was used."""
    used = {**asdict(line.used), "latency_ms_mean": line.latency_ms_mean}
    of_all = {n: getattr(line, n) for n in ("succeeded", *_PARTS, "gaps")}
    return {**{name: getattr(line, name) for name in names}, **used, **of_all}


_PARTS = ("failed_nano_usd", "retry_nano_usd", "repair_nano_usd")


def _total(lines: list[CostLine]) -> CostLine:
    parts = {n: sum(getattr(line, n) for line in lines) for n in ("succeeded", *_PARTS)}
    return CostLine(used=sum((line.used for line in lines), NOTHING), **parts)


def _row(line: CostLine, names: list[str]) -> tuple[object, ...]:
    groups = ("-" if getattr(line, name) is None else getattr(line, name) for name in names)
    return *groups, *_measured(line)


def _measured(line: CostLine) -> tuple[object, ...]:
    used = line.used
    unknown = "+?" if used.without_tokens else ""
    tokens = (f"{used.input_tokens}{unknown}", f"{used.output_tokens}{unknown}")
    amounts = (
        *(used.posted_nano_usd, used.saved_nano_usd, line.retry_nano_usd),
        *(line.failed_nano_usd, line.repair_nano_usd, used.unknown_nano_usd),
    )
    mean = "" if line.latency_ms_mean is None else line.latency_ms_mean
    return used.calls, used.attempts, used.collapsed, *tokens, *map(usd, amounts), mean


def _print_notes(lines: list[CostLine]) -> None:
    without = sum(line.used.without_tokens for line in lines)
    if without:
        print_note(
            f"+?: the tokens of {without} paid attempts are not known, and are not in the sums"
        )
    if lines and lines[0].gaps:
        print_note(f"not complete: {lines[0].gaps} days of before an upgrade are not summed up yet")
