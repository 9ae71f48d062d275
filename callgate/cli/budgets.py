"""`callgate budgets` and `callgate audit`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from callgate.adapters.threads import in_threads
from callgate.cli.actions import by_of
from callgate.cli.options import (
    AsJson,
    CallType,
    Operator,
    Reason,
    Yes,
    parse_name,
    parse_text,
)
from callgate.cli.output import (
    client_of,
    confirm,
    print_fields,
    print_json,
    print_note,
    print_table,
)
from callgate.cli.unknown_names import point_out, point_out_call_type
from callgate.domain.budgets import BudgetFigures, Window, nano_usd_of, usd
from callgate.services.audit import AuditReport
from callgate.services.audit import audit as audit_ledger
from callgate.services.budgets import LIMIT_MAX_USD, budgets_of, remove_budgets, set_limits

NO_REASON = "no reason was given"
AUDIT_SESSIONS = 2
"""Each keeps one core of the server busy."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    budgets = typer.Typer(no_args_is_help=True, help="Set and show what organisations may spend.")
    budgets.command("set")(set_budget)
    budgets.command("show")(show)
    budgets.command("remove")(remove)
    app.add_typer(budgets, name="budgets")
    app.command()(audit)


def parse_amount(text: str) -> int:
    """Parse an amount of USD: a decimal with at most nine places."""
    try:
        return nano_usd_of(text, usd_max=LIMIT_MAX_USD)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None


def set_budget(
    context: typer.Context,
    org: Annotated[str, typer.Argument(parser=parse_name, metavar="ORG")],
    daily: Annotated[
        int | None,
        typer.Option("--daily-usd", parser=parse_amount, metavar="USD", help="Limit per day."),
    ] = None,
    monthly: Annotated[
        int | None,
        typer.Option("--monthly-usd", parser=parse_amount, metavar="USD", help="Per month."),
    ] = None,
    call_type: CallType = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone",
            help="The time zone in which days begin, as Postgres names it; UTC for new budgets. Given alone, it"
            " changes the existing budgets.",
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", parser=parse_text, help="Why; stored with the change.")
    ] = NO_REASON,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Set the limit of an organisation, or of one of its call types, now. A name that no call has used is pointed out.

    JSON: an array of the budgets that were set, as in `budgets show`.
    """
    if daily is None and monthly is None and timezone is None:
        raise typer.BadParameter("how much? give --daily-usd or --monthly-usd, or both")
    given = {Window.DAY: daily, Window.MONTH: monthly}
    limits = {window: limit for window, limit in given.items() if limit is not None}
    with client_of(context) as client:
        figures = set_limits(
            client.operations,
            org,
            limits,
            call_type=call_type,
            timezone=timezone,
            by=by_of(client, operator, reason),
        )
        point_out(client, org)
        if call_type:
            point_out_call_type(client, call_type)
    if not figures:
        raise typer.BadParameter("there is no such budget yet: give --daily-usd or --monthly-usd")
    _print_budgets(figures, as_json)


def show(
    context: typer.Context,
    org: Annotated[str | None, typer.Argument(parser=parse_name, metavar="ORG")] = None,
    as_json: AsJson = False,
) -> None:
    """
    Show budgets in their newest period.

    JSON: an array of budget_id, org_id, scope, window, timezone, starts_at, ends_at, limit_nano_usd, reserved_nano_usd,
    spent_nano_usd and left_nano_usd.
    """
    with client_of(context) as client:
        figures = client.operations.budgets(org)
        if not figures:
            point_out(client, org)
    _print_budgets(figures, as_json)


def remove(
    context: typer.Context,
    org: Annotated[str, typer.Argument(parser=parse_name, metavar="ORG")],
    reason: Reason,
    call_type: CallType = None,
    per: Annotated[
        Window | None, typer.Option("--per", help="Only the daily or the monthly one.")
    ] = None,
    operator: Operator = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """
    Remove the budgets of an organisation, or with --call-type those of that call type. Costs and the action log stay.

    Attempts under way are posted as usual. An organisation without any budget has the default limit; without one its
    calls are refused (budget_not_configured). Exit 1 if there is no such budget.

    JSON: an array of the budgets that were removed, as in `budgets show`.
    """
    with client_of(context) as client:
        found = budgets_of(client.operations, org, call_type=call_type, window=per)
        if found:
            confirm(f"Remove {', '.join(map(_told, found))}?", yes)
            remove_budgets(client.operations, found, by=by_of(client, operator, reason))
        left = client.operations.budgets(org)
    _print_budgets(found, as_json)
    if not found:
        raise typer.Exit(1)
    if not left:
        print_note(f"{org} has no budget now: it has the default limit, if there is one")


def _told(budget: BudgetFigures) -> str:
    spent = usd(budget.spent_nano_usd)
    return f"{budget.scope} per {budget.window} ({usd(budget.limit_nano_usd)}, {spent} spent)"


def audit(
    context: typer.Context,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Prove also the days that were proven before, and are sealed."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Check that every budget figure and every sum of costs equals the sum of its rows; exit 1 if one does not.

    Quarter hours that are over and right are sealed, and are proven again only after a change, or with --all.

    JSON: is_clean, drift_nano_usd, drifting, days (proven now), proof, and the fields of the snapshot.
    """
    with client_of(context) as client:
        report = audit_ledger(
            client.operations, everything=everything, sessions=AUDIT_SESSIONS, run=in_threads
        )
    if as_json:
        print_json(_audit_fields(report))
    else:
        _print_audit(report)
    if not report.is_clean:
        raise typer.Exit(1)


def _print_budgets(figures: list[BudgetFigures], as_json: bool) -> None:
    if as_json:
        print_json([{**asdict(f), "left_nano_usd": f.left_nano_usd} for f in figures])
        return
    columns = ("org", "scope", "!per", ">limit", ">spent", ">held", ">left", "zone")
    print_table(columns, map(_budget_row, figures), "no budgets; set one: callgate budgets set")


def _budget_row(f: BudgetFigures) -> tuple[object, ...]:
    amounts = (f.limit_nano_usd, f.spent_nano_usd, f.reserved_nano_usd, f.left_nano_usd)
    return f.org_id, f.scope, f.window, *map(usd, amounts), f.timezone


def _audit_fields(report: AuditReport) -> dict[str, Any]:
    return {
        "is_clean": report.is_clean,
        "drift_nano_usd": report.drift_nano_usd,
        "drifting": report.drifting,
        "days": report.days,
        "days_in_parts": report.days_in_parts,
        "proof": report.proof,
        **asdict(report.snapshot),
    }


def _print_audit(report: AuditReport) -> None:
    seen, proof = report.snapshot, report.proof
    print_fields(
        {
            "ledger": "right" if report.is_clean else "WRONG",
            "drift": usd(report.drift_nano_usd),
            "budgets": len(seen.budgets),
            "spent": usd(seen.spent_nano_usd),
            "calls": _counts(seen.calls_by_state),
            "attempts": _counts(seen.attempts_by_status),
            "days proven now": report.days,
            "days proven in parts": _in_parts(report.days_in_parts),
            "wrong sums": f"{proof.wrong_sums}, by {usd(proof.drift_nano_usd)}",
            "wrong sums of budgets": proof.wrong_budgets,
            "calls with missing rows": proof.calls_with_missing_rows,
            "rows without a call": proof.rows_without_call,
            "broken seals": seen.broken_seals,
            "days not summed up yet": seen.gaps,
            "unknown attempts": seen.unknown_attempts,
            "dead letters": seen.dead_letters,
            "at": seen.at,
        }
    )
    for b in report.drifting:
        print_fields(
            {
                "drifts": f"{b.org_id} {b.scope} per {b.window} from {b.starts_at}",
                "held": f"{usd(b.reserved_nano_usd)}, by rows {usd(b.reserved_by_rows_nano_usd)}",
                "spent": f"{usd(b.spent_nano_usd)}, by rows {usd(b.spent_by_rows_nano_usd)}",
            }
        )


def _in_parts(days: int) -> str:
    hint = "; their budgets need a longer CALLGATE_LEDGER_TIMEOUT_S" if days else ""
    return f"{days}{hint}"


def _counts(by_name: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(by_name.items())) or "none"
