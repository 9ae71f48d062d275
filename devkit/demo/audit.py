"""The last scenario: costs, an audit, and the ledger compared with what was counted on the wire."""

from callgate.domain.budgets import NANO_PER_USD, usd
from callgate.domain.sums import CostLine
from callgate.services.audit import AuditReport, audit
from devkit.demo.scenario import DemoRun, expect


def audit_ledger(run: DemoRun) -> AuditReport:
    """Show costs by call type, audit the ledger, and compare it with the counts of proxy and simulator."""
    with run.console.scenario("7  Costs and audit"):
        operations = run.environment.client.operations
        run.console.table(
            ("Call type", "Model", "Calls", "Sent", "Tokens in", "out", "Spent", "mean"),
            [_row(line) for line in operations.costs()],
            right=range(2, 8),
        )
        report = audit(operations)
        _check_outcome(run, report)
    return report


def _row(line: CostLine) -> list[str]:
    return [
        line.call_type or "",
        f"{line.provider}/{line.model}",
        str(line.used.calls),
        str(line.used.attempts),
        f"{line.used.input_tokens:,}",
        f"{line.used.output_tokens:,}",
        f"${line.used.posted_nano_usd / NANO_PER_USD:.6f}",
        _seconds(line.latency_ms_mean),
    ]


def _seconds(latency_ms: int | None) -> str:
    return "-" if latency_ms is None else f"{latency_ms / 1000:.2f} s"


def _check_outcome(run: DemoRun, report: AuditReport) -> None:
    snapshot, sent = report.snapshot, run.environment.requests_sent()
    logged = sum(snapshot.attempts_by_status.values())
    expect(
        logged == sent, f"{sent} rows in ai_call_log, one for each request sent", f"it has {logged}"
    )
    repeated = {
        **run.environment.proxy.counts().repeated,
        **run.environment.simulator.counts().repeated,
    }
    expect(
        not repeated,
        "one request per attempt",
        f"these attempt ids were sent more than once: {repeated}",
    )
    run.console.fact(f"{sent} provider requests counted on the wire, {logged} rows in ai_call_log")
    ended = sum(
        snapshot.calls_by_state.get(state, 0) for state in ("succeeded", "dead", "rejected")
    )
    begun = run.counters.generations
    expect(
        ended == begun == sum(snapshot.calls_by_state.values()),
        f"all {begun} calls to have ended",
        f"the ledger has {snapshot.calls_by_state}",
    )
    run.console.fact(
        f"{run.counters.submitted} submissions and {run.counters.redriven} redrives became {begun} calls;"
        " all have ended"
    )
    expect(
        report.is_clean,
        "a clean audit",
        f"{report.drift_nano_usd} nano-USD drift, {report.proof.calls_with_missing_rows} calls lack rows,"
        f" {report.proof.rows_without_call} rows lack calls",
    )
    run.console.fact(f"audit: {usd(snapshot.spent_nano_usd)} spent, drift {report.drift_nano_usd}")
