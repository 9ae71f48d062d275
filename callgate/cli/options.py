"""Options that several commands share, and the parsers of their values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from callgate.domain.bounds import LISTED_MAX
from callgate.domain.call_order import Priority
from callgate.domain.reports import CallFilter
from callgate.domain.requests import Name

REASON_CHARS_MAX = 1_000
TIME_EXAMPLE = "2026-11-30T18:00Z"
PRIORITIES = ", ".join(priority.name.lower() for priority in Priority)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def parse_name(text: str) -> str:
    """Parse the name of an organisation, call type, provider or model."""
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is not a valid name") from None


def parse_text(text: str) -> str:
    """Parse a reason or a name of an operator: not empty, not too long, and printable."""
    stripped = text.strip()
    if not stripped or len(stripped) > REASON_CHARS_MAX:
        raise typer.BadParameter(f"give 1 to {REASON_CHARS_MAX} characters")
    if not stripped.replace("\n", " ").replace("\t", " ").isprintable():
        raise typer.BadParameter("it has characters that cannot be printed")
    return stripped


def parse_time(text: str) -> datetime:
    """Parse a time of ISO 8601 with its time zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time, for example {TIME_EXAMPLE}") from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone, for example {TIME_EXAMPLE}")
    return at


def parse_priority(text: str) -> Priority:
    """Parse the name of a class."""
    try:
        return Priority[text.upper()]
    except KeyError:
        raise typer.BadParameter(f"{text!r} is not one of {PRIORITIES}") from None


_PROVIDER = typer.Option("--provider", parser=parse_name, help="The provider.")
_MODEL = typer.Option("--model", parser=parse_name, help="The model.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; only say what would be done.")
]
Limit = Annotated[
    int, typer.Option("--limit", min=1, max=LISTED_MAX, help="List at most this many.")
]
Reason = Annotated[
    str, typer.Option("--reason", parser=parse_text, help="Why; stored with the change.")
]
Operator = Annotated[
    str | None,
    typer.Option(
        "--operator",
        parser=parse_text,
        help="Your name; else CALLGATE_OPERATOR, else the user of this system.",
    ),
]
Org = Annotated[str | None, typer.Option("--org", parser=parse_name, help="The organisation.")]
CallType = Annotated[
    str | None, typer.Option("--call-type", parser=parse_name, help="The call type.")
]
Provider = Annotated[str | None, _PROVIDER]
Model = Annotated[str | None, _MODEL]
ProviderName = Annotated[str, _PROVIDER]
ModelName = Annotated[str, _MODEL]
Tier = Annotated[
    str | None,
    typer.Option("--tier", help="The service tier that was billed; empty: not known."),
]
AttemptKindOption = Annotated[
    str | None,
    typer.Option("--kind", parser=parse_name, help="Why: first, retry, repair, probe, ..."),
]
AttemptOutcome = Annotated[
    str | None,
    typer.Option("--outcome", parser=parse_name, help="succeeded, failed, unknown, ..."),
]
Fingerprint = Annotated[
    str | None,
    typer.Option(
        "--fingerprint", help="Only calls with this error fingerprint: they failed alike."
    ),
]


def call_filter(
    org: Org = None,
    call_type: CallType = None,
    provider: Provider = None,
    model: Model = None,
    fingerprint: Fingerprint = None,
) -> CallFilter:
    """The options that choose calls."""
    return CallFilter(
        org_id=org,
        call_type=call_type,
        provider=provider,
        model=model,
        error_fingerprint=fingerprint,
    )


Command = Callable[..., None]


def with_options(**groups: Callable[..., object]) -> Callable[[Command], Command]:
    """
    Give a command the options of a group in place of one parameter.

    `@with_options(call_filter=call_filter)` replaces the parameter `call_filter` by the parameters of the function
    `call_filter`, and passes on what that function returns.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        options_of: dict[str, list[str]] = {}
        for parameter in signature.parameters.values():
            expanded = [parameter]
            if parameter.name in groups:
                group = inspect.signature(groups[parameter.name], eval_str=True)
                expanded = list(group.parameters.values())
                options_of[parameter.name] = [option.name for option in expanded]
            parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in expanded]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            for name, options in options_of.items():
                given[name] = groups[name](**{option: given.pop(option) for option in options})
            command(**given)

        del run.__wrapped__  # type: ignore[attr-defined]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate
