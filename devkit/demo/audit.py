"""The last act: what it cost, and whether the books are right."""

from callgate.domain.budgets import NANO_PER_USD, usd
from callgate.domain.reports import CostLine
from callgate.services.audit import AuditReport, audit
from devkit.demo.progress import DemoProgress, expect


def close_the_books(play: DemoProgress) -> AuditReport:
    """Show costs by call type, audit the ledger, and compare it with what was seen on the wire."""
    with play.screen.act("6  The books"):
        operations = play.stage.client.operations
        play.screen.table(
            ("Call type", "Model", "Calls", "Sent", "Tokens in", "out", "Spent", "p50", "p95"),
            [_row(line) for line in operations.costs()],
            right=range(2, 9),
        )
        report = audit(operations.snapshot())
        _judge(play, report)
    return report


def _row(line: CostLine) -> list[str]:
    return [
        line.call_type,
        line.model,
        str(line.calls),
        str(line.attempts),
        f"{line.input_tokens:,}",
        f"{line.output_tokens:,}",
        f"${line.spent_nano_usd / NANO_PER_USD:.6f}",
        _seconds(line.latency_ms_p50),
        _seconds(line.latency_ms_p95),
    ]


def _seconds(latency_ms: int | None) -> str:
    return "-" if latency_ms is None else f"{latency_ms / 1000:.2f} s"


def _judge(play: DemoProgress, report: AuditReport) -> None:
    books, sent = report.snapshot, play.stage.sent()
    logged = sum(books.attempts_by_status.values())
    expect(
        logged == sent, f"a row of ai_call_log for each of {sent} requests sent", f"it has {logged}"
    )
    repeated = {**play.stage.proxy.counts().repeated, **play.stage.simulator.counts().repeated}
    expect(not repeated, "one request per attempt", f"some were sent again: {repeated}")
    play.screen.fact(f"{sent} provider requests seen on the wire, {logged} rows in ai_call_log")
    ended = sum(books.calls_by_state.get(state, 0) for state in ("succeeded", "dead", "rejected"))
    begun = play.tally.generations
    expect(
        ended == begun == sum(books.calls_by_state.values()),
        f"all {begun} calls that were begun to have ended",
        f"the ledger says {books.calls_by_state}",
    )
    play.screen.fact(
        f"{play.tally.submitted} submissions and {play.tally.redriven} redrives became {begun} calls;"
        " every one has ended"
    )
    expect(
        report.is_clean,
        "an audit without drift",
        f"{report.drift_nano_usd} nano-USD drift, {books.calls_with_missing_rows} calls lack rows,"
        f" {books.rows_without_call} rows lack calls",
    )
    play.screen.fact(f"audit: {usd(books.spent_nano_usd)} spent, drift {report.drift_nano_usd}")
