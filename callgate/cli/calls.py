"""`callgate submit` and `callgate calls`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from pydantic import ValidationError

from callgate.cli.output import (
    CALL_COLUMNS,
    AsJson,
    CallType,
    Fingerprint,
    Model,
    Org,
    Provider,
    call_fields,
    call_rows,
    client_of,
    error_text,
    print_answer,
    print_fields,
    print_json,
    print_table,
    say,
    tokens_text,
    waits_for,
)
from callgate.domain.budgets import usd
from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.delivery import LinkFailure
from callgate.domain.errors import CallNotFound, InvalidRequest
from callgate.domain.reports import CallFilter
from callgate.domain.requests import LLMRequest, LLMResult, OnBudget

if TYPE_CHECKING:
    from callgate.client import Client, Handle

LISTED_MAX = 1_000
FAILURES_SHOWN_MAX = 100
TaskId = Annotated[str, typer.Argument(metavar="CALL", help="A task id, or a call id: its newest.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(submit)
    calls = typer.Typer(no_args_is_help=True, help="Look at calls, and cancel them.")
    calls.command("list")(list_calls)
    calls.command()(show)
    calls.command()(cancel)
    app.add_typer(calls, name="calls")


def submit(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Option("--file", help="An LLMRequest as JSON; `-` reads stdin.")
    ] = None,
    org: Annotated[str | None, typer.Option("--org")] = None,
    call_type: Annotated[str | None, typer.Option("--call-type")] = None,
    provider: Annotated[str, typer.Option("--provider")] = "openai",
    model: Annotated[str | None, typer.Option("--model")] = None,
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
    idempotency_key: Annotated[str | None, typer.Option("--idempotency-key")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run anew what has ended.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result.")] = True,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, max=86_400, help="Seconds to wait.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Submit one call, and print its answer."""
    fields: dict[str, Any] = {
        "org_id": org,
        "call_type": call_type,
        "provider": provider,
        "model": model,
        "max_output_tokens": max_output_tokens,
        "temperature": temperature,
        "on_budget": on_budget,
    }
    if file is not None:
        _refuse_both(org, call_type, model, prompt, system, max_output_tokens, temperature, schema)
        request = _request(LLMRequest.model_validate_json, _text(file))
    else:
        _require(org=org, call_type=call_type, model=model, prompt=prompt)
        fields["messages"] = _messages(system, prompt)
        fields["response_schema"] = _text(str(schema)) if schema else None
        request = _request(LLMRequest.model_validate, fields)
    with client_of(context) as client:
        handle = client.submit(request, idempotency_key=idempotency_key, force=force)
        if wait:
            _print_result(handle, _awaited(handle, timeout_s), as_json)
        elif as_json:
            print_json({"task_id": handle.task_id, "collapsed": handle.collapsed})
        else:
            typer.echo(handle.task_id)


def list_calls(
    context: typer.Context,
    org: Org = None,
    state: Annotated[CallState | None, typer.Option("--state")] = None,
    call_type: CallType = None,
    provider: Provider = None,
    model: Model = None,
    fingerprint: Fingerprint = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LISTED_MAX)] = 20,
    as_json: AsJson = False,
) -> None:
    """List calls, newest first."""
    wanted = CallFilter(org, state, call_type, provider, model, fingerprint)
    with client_of(context) as client:
        views = client.operations.calls(wanted, limit=limit)
    if as_json:
        print_json([call_fields(view) for view in views])
    else:
        rows = zip(call_rows(views), views, strict=True)
        columns = (*CALL_COLUMNS, "waits for")
        print_table(columns, ((*row, waits_for(view)) for row, view in rows), "no calls")


def show(
    context: typer.Context,
    task_id: TaskId,
    bodies: Annotated[
        bool, typer.Option("--bodies", help="With the request and the reply.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one call."""
    with client_of(context) as client:
        view = find_call(client, task_id, Bodies.BOTH if bodies else Bodies.NONE)
        failures = client.operations.link_failures(view.key, limit=FAILURES_SHOWN_MAX)
    print_call(view, failures, as_json=as_json)


def cancel(
    context: typer.Context,
    task_id: TaskId,
    reason: Annotated[str, typer.Option("--reason")] = "cancelled on the command line",
    as_json: AsJson = False,
) -> None:
    """Cancel a call that is queued or waiting; one that runs is paid already."""
    with client_of(context) as client:
        view = find_call(client, task_id, Bodies.NONE)
        is_cancelled = client.cancel(view.key.task_id, reason)
        state = find_call(client, view.key.task_id, Bodies.NONE).state
    if as_json:
        print_json({"task_id": view.key.task_id, "cancelled": is_cancelled, "state": state})
    elif is_cancelled:
        say(f"cancelled {view.key.task_id}")
    else:
        say(f"not cancelled: {view.key.task_id} is {state}")
    if not is_cancelled:
        raise typer.Exit(1)


def find_call(client: Client, text: str, bodies: Bodies) -> CallView:
    """
    Find a call by its task id, or the newest generation of a call id.

    Raises:
        InvalidRequest, CallNotFound
    """
    key = client.handle(text).key if "." in text else _newest(client, text)
    (view,) = client.ledger.read([key], bodies)
    if view is None:
        raise CallNotFound(f"the ledger knows no call {text}")
    return view


def print_call(view: CallView, failures: Sequence[LinkFailure] = (), *, as_json: bool) -> None:
    """Print all that is known about one call, with the links of it that could not be delivered."""
    if as_json:
        told = {"link_failures": [asdict(f) for f in failures]} if failures else {}
        print_json({**call_fields(view), **told})
        return
    last = view.last
    print_fields(
        {
            "call": view.key.task_id,
            "state": view.state,
            "org": view.org_id,
            "call type": view.call_type,
            "model": f"{view.provider}/{view.model}",
            "created": view.created_at,
            "waits for": waits_for(view) or None,
            "due": view.due_at,
            "attempts": f"{view.attempt} ({view.worker_losses} lost)",
            "cost": usd(view.posted_nano_usd),
            "tokens": tokens_text(last.usage) if last and last.status.is_posted else None,
            "flags": ", ".join(last.anomalies) if last and last.anomalies else None,
            "error": error_text(view.error) or None,
            "links": _links_text(failures) or None,
            "last attempt": last and f"{last.attempt} {last.status}, id {last.attempt_id}",
            "made": last and f"as a {last.kind}, with {_whose(last.credential)} key",
            "worker": last and last.worker_id,
            "latency": f"{last.latency_ms} ms" if last and last.latency_ms is not None else None,
            "priced by": last and last.price_source,
            "provider's id": last and last.provider_request_id,
            "bodies": "purged" if view.is_purged else None,
            "request": view.request and view.request.decode(errors="replace"),
            "reply": last and last.reply and last.reply.decode(errors="replace"),
        }
    )


def _links_text(failures: Sequence[LinkFailure]) -> str:
    """How many links could not be delivered, by what becomes of them and why."""
    counts = Counter(
        ("given up" if f.given_up_at else "to be tried again", f.why) for f in failures
    )
    return "; ".join(f"{n} {fate}: {why}" for (fate, why), n in counts.items())


def _whose(credential: str) -> str:
    return f"{credential}'s own" if credential else "the provider's"


def _newest(client: Client, text: str) -> CallKey:
    try:
        call_id = UUID(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is no call of callgate") from None
    for view in client.operations.calls(CallFilter(call_ids=(call_id,)), limit=1):
        return view.key
    raise CallNotFound(f"the ledger knows no call {text}")


def _awaited(handle: Handle, timeout_s: float) -> LLMResult:
    """Wait for the result; whoever stops waiting is told that the call goes on, and under which name."""
    try:
        return handle.get(timeout_s)
    except KeyboardInterrupt:
        task_id = handle.task_id
        say(f"the call goes on; its answer later: callgate calls show {task_id} --bodies")
        raise


def _print_result(handle: Handle, result: LLMResult, as_json: bool) -> None:
    task_id, collapsed = handle.task_id, handle.collapsed
    if as_json:
        print_json({"task_id": task_id, "collapsed": collapsed, **result.model_dump(mode="json")})
        return
    print_answer(result.text)
    tokens = f"{tokens_text(result.usage)} tokens"
    joined = ", collapsed" if collapsed else ""
    say(
        f"{task_id}: {result.model}, {tokens}, ${result.cost_usd:.6f}, {result.latency_ms} ms{joined}"
    )


def _request(build: Any, source: object) -> LLMRequest:
    """Build the request; what is wrong is named by its field, never by its text."""
    try:
        request: LLMRequest = build(source)
    except ValidationError as exc:
        wrong = exc.errors(include_input=False, include_url=False)
        told = (f"{'.'.join(map(str, w['loc'])) or 'the request'}: {w['msg']}" for w in wrong)
        raise InvalidRequest("; ".join(told)) from None
    return request


def _messages(system: str | None, prompt: str | None) -> list[dict[str, str | None]]:
    asked = {"role": "user", "content": _text("-") if prompt == "-" else prompt}
    return [{"role": "system", "content": system}, asked] if system else [asked]


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{path} cannot be read: {exc}") from None


def _require(**options: str | None) -> None:
    missing = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is None]
    if missing:
        raise typer.BadParameter(f"give {', '.join(missing)}, or --file with a whole request")


def _refuse_both(*options: object) -> None:
    if any(option is not None for option in options):
        raise typer.BadParameter("--file is a whole request; give no part of it as an option")
