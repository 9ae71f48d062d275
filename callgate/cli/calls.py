"""`callgate submit` and `callgate calls`."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from callgate.cli.call_history import tokens_text
from callgate.cli.call_output import (
    CALL_COLUMNS,
    call_fields,
    call_row,
    print_call,
    wait_text,
)
from callgate.cli.options import (
    PRIORITIES,
    TIME_EXAMPLE,
    AsJson,
    AttemptKindOption,
    AttemptOutcome,
    CallType,
    Limit,
    Model,
    Org,
    ProviderName,
    Reason,
    Tier,
    call_filter,
    parse_priority,
    parse_time,
    with_options,
)
from callgate.cli.output import (
    at_most,
    client_of,
    more_than,
    print_answer,
    print_error,
    print_json,
    print_note,
    print_table,
)
from callgate.cli.periods import Period, period
from callgate.cli.unknown_names import point_out, point_out_call_type
from callgate.domain.call_order import Priority
from callgate.domain.call_words import WORDS, both, parse_words
from callgate.domain.calls import Bodies, CallState, WaitReason
from callgate.domain.errors import CallgateError, InvalidRequest, Unavailable
from callgate.domain.open_calls import OnBusy
from callgate.domain.reports import CallFilter
from callgate.domain.requests import LLMRequest, LLMResult, OnBudget

if TYPE_CHECKING:
    from callgate.client import Handle

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="WORDS", help=f"Any of {', '.join(f'{name}:' for name in WORDS)}"),
]
TaskId = Annotated[
    str,
    typer.Argument(
        metavar="CALL",
        help="A task id; or a call id, or its first 8 digits: the newest generation.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(submit)
    calls = typer.Typer(no_args_is_help=True, help="List, show and cancel calls.")
    calls.command("list")(list_calls)
    calls.command()(show)
    calls.command()(cancel)
    app.add_typer(calls, name="calls")


def request_of_options(
    file: Annotated[
        str | None, typer.Option("--file", help="An LLMRequest as JSON; `-` reads stdin.")
    ] = None,
    org: Org = None,
    call_type: CallType = None,
    provider: ProviderName = "openai",
    model: Model = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="The user's message; `-` reads stdin.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system message.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option("--max-output-tokens")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature")] = None,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="A file with the answer's JSON Schema.")
    ] = None,
    on_budget: Annotated[OnBudget, typer.Option("--on-budget")] = OnBudget.REJECT,
) -> LLMRequest:
    """The options that make a request."""
    if file is not None:
        parts = (org, call_type, model, prompt, system, max_output_tokens, temperature, schema)
        if any(part is not None for part in parts):
            raise typer.BadParameter("--file is a whole request; give no part of it as an option")
        return _request(LLMRequest.model_validate_json, _text(file))
    _require(org=org, call_type=call_type, model=model, prompt=prompt)
    fields = {
        "org_id": org,
        "call_type": call_type,
        "provider": provider,
        "model": model,
        "messages": _messages(system, prompt),
        "max_output_tokens": max_output_tokens,
        "temperature": temperature,
        "response_schema": _text(str(schema)) if schema else None,
        "on_budget": on_budget,
    }
    return _request(LLMRequest.model_validate, fields)


def order_of_options(
    priority: Annotated[
        Any,
        typer.Option(
            "--priority",
            parser=parse_priority,
            metavar="CLASS",
            help=f"Its class: {PRIORITIES}; without it normal.",
        ),
    ] = None,
    start_before: Annotated[
        Any,
        typer.Option(
            "--start-before",
            parser=parse_time,
            metavar="TIME",
            help=f"Reject it if it was not sent before, for example {TIME_EXAMPLE}.",
        ),
    ] = None,
    on_busy: Annotated[
        OnBusy,
        typer.Option(
            "--on-busy", help="If its organisation has too many open calls: an error, or wait."
        ),
    ] = OnBusy.RAISE,
) -> dict[str, Any]:
    """The options that say when it is sent."""
    return {
        "priority": Priority.NORMAL if priority is None else priority,
        "start_before": start_before,
        "on_busy": on_busy.value,
    }


@with_options(request=request_of_options, order=order_of_options)
def submit(
    context: typer.Context,
    request: LLMRequest,
    order: dict[str, Any],
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Your name for this submission.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Run the call again although it succeeded or is dead.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result.")] = True,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout",
            min=0,
            max=86_400,
            help="Seconds to wait for the result, and with --on-busy wait for room.",
        ),
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """
    Submit one call, and print its answer. What is known of the call comes first: its task id.

    JSON: task_id and collapsed; with --wait also every field of an LLMResult, or error if there is no result.
    """
    with client_of(context) as client:
        point_out_call_type(client, request.call_type)
        try:
            handle = client.submit(
                request,
                idempotency_key=idempotency_key,
                force=force,
                busy_timeout_s=timeout_s,
                **order,
            )
        except Unavailable:
            from callgate.services.submit import call_id_of

            print_note(f"if it was accepted, it is call {call_id_of(request, client.catalogue)}")
            raise
        if wait:
            print_note(f"call {handle.task_id}")
            _print_result(handle, _await_result(handle, timeout_s, as_json), as_json)
        elif as_json:
            print_json({"task_id": handle.task_id, "collapsed": handle.collapsed})
        else:
            typer.echo(handle.task_id)


@with_options(call_filter=call_filter, when=period)
def list_calls(
    context: typer.Context,
    call_filter: CallFilter,
    when: Period,
    words: Words = None,
    tier: Tier = None,
    kind: AttemptKindOption = None,
    outcome: AttemptOutcome = None,
    state: Annotated[
        CallState | None, typer.Option("--state", help="Only calls in this state.")
    ] = None,
    wait_reason: Annotated[
        WaitReason | None, typer.Option("--wait-reason", help="Only calls that wait for this.")
    ] = None,
    end_reason: Annotated[
        str | None,
        typer.Option(
            "--end-reason",
            metavar="CODE",
            help="Only dead or rejected calls with this error code, for example cancelled.",
        ),
    ] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """
    List calls, newest first. WORDS narrow, as in Flower: 'org:acme state:dead since:2h'. So do the options.

    The newest 30,000 calls that can match are looked at (1,500 with --tier, --kind or --outcome): give --since and
    --until to find older ones.

    JSON: an array; each call has task_id, the fields of a CallView without bodies, its class by name as priority, and
    end_reason.
    """
    call_filter = replace(call_filter, state=state, wait_reason=wait_reason, end_reason=end_reason)
    call_filter = replace(call_filter, tier=tier, kind=kind, outcome=outcome)
    call_filter = both(parse_words(" ".join(words or ()), now=datetime.now(UTC)), call_filter)
    with client_of(context) as client:
        since, until = when.of(call_filter.org_id, client)
        call_filter = both(call_filter, CallFilter(since=since, until=until))
        views, is_cut = at_most(client.operations.calls(call_filter, limit=limit + 1), limit)
        next_at = {} if as_json else client.calls.next_tries(views, datetime.now(UTC))
        if not views:
            point_out(client, call_filter.org_id, call_filter.call_type)
    if as_json:
        print_json([call_fields(view) for view in views])
        return
    columns = (*CALL_COLUMNS, "waits for", "end reason")
    rows = [
        (*call_row(view), wait_text(view, next_at.get(view.key)), view.end_reason or "")
        for view in views
    ]
    print_table(columns, rows, "no calls")
    if is_cut:
        print_note(more_than(limit))


def show(
    context: typer.Context,
    task_id: TaskId,
    bodies: Annotated[
        bool, typer.Option("--bodies", help="Include the request and the reply.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Show one call: its attempts with their money, who asked for it, what operators did, and what comes next.

    Of one that waits for a provider it also shows about when it is sent, if no other call is before it. Of one that
    waits for a place or held money it shows how many calls are before it. Of one that was refused it shows the figures.

    JSON: one call as in `calls list`; attempts, submissions (with lines), generations, actions, next, saved_nano_usd,
    error_fingerprint; with --bodies also request and last.reply; earliest_at if it waits for a limit and that time is
    known; ahead (of_call_type, of_organisation) and places if it waits for a place or held money; link_failures if
    there are any.
    """
    with client_of(context) as client:
        shown = Bodies.BOTH if bodies else Bodies.NONE
        seen = client.calls.details(task_id, shown, datetime.now(UTC))
    print_call(seen, as_json=as_json)


def cancel(
    context: typer.Context,
    task_id: TaskId,
    reason: Reason = "cancelled on the command line",
    as_json: AsJson = False,
) -> None:
    """
    Cancel a call that is queued or waiting; a running call is already paid. Exit 1 if it was not cancelled.

    JSON: task_id, cancelled (true or false) and state.
    """
    with client_of(context) as client:
        done = client.calls.cancel_named(task_id, reason)
    if as_json:
        print_json({"task_id": done.task_id, "cancelled": done.is_cancelled, "state": done.state})
    elif done.is_cancelled:
        print_note(f"cancelled {done.task_id}")
    else:
        print_note(f"not cancelled: {done.task_id} is {done.state}")
    if not done.is_cancelled:
        raise typer.Exit(1)


def _await_result(handle: Handle, timeout_s: float, as_json: bool) -> LLMResult:
    """Wait for the result. After Ctrl-C say that the call goes on, and how to find its answer."""
    about = {"task_id": handle.task_id, "collapsed": handle.collapsed}
    try:
        return handle.get(timeout_s)
    except CallgateError as exc:
        print_error(exc, as_json=as_json, **about)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        if as_json:
            print_json({**about, "error": {"code": "interrupted", "message": "the call goes on"}})
        task_id = handle.task_id
        print_note(f"the call goes on; for its answer: callgate calls show {task_id} --bodies")
        raise


def _print_result(handle: Handle, result: LLMResult, as_json: bool) -> None:
    task_id, collapsed = handle.task_id, handle.collapsed
    if as_json:
        print_json({"task_id": task_id, "collapsed": collapsed, **result.model_dump(mode="json")})
        return
    print_answer(result.text)
    tokens = f"{tokens_text(result.usage)} tokens"
    joined = ", collapsed" if collapsed else ""
    print_note(
        f"{task_id}: {result.model}, {tokens}, ${result.cost_usd:.6f}, {result.latency_ms} ms{joined}"
    )


def _request(build: Any, source: object) -> LLMRequest:
    """Build the request; an error names the wrong field, and never quotes its text."""
    try:
        request: LLMRequest = build(source)
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False)
        named = (f"{'.'.join(map(str, e['loc'])) or 'the request'}: {e['msg']}" for e in errors)
        raise InvalidRequest("; ".join(named)) from None
    return request


def _messages(system: str | None, prompt: str | None) -> list[dict[str, str | None]]:
    user = {"role": "user", "content": _text("-") if prompt == "-" else prompt}
    return [{"role": "system", "content": system}, user] if system else [user]


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{path} cannot be read: {exc}") from None


def _require(**options: str | None) -> None:
    missing = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is None]
    if missing:
        raise typer.BadParameter(f"give {', '.join(missing)}, or --file with a whole request")
