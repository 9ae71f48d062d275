"""The page of the command line, from the parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperArgument
from typer.main import get_command

from callgate.cli import build_app

INTRODUCTION = """\
# Command line

`callgate` answers on stdout and says everything else on stderr. Commands that answer take `--json`: then stdout holds
exactly one object or array, whose shape is at the end of each description below. Within a minor version fields may be
added, and none is removed. An error is an object too, `{"error": {"code": "...", "message": "..."}}`; its line on
stderr stays. Where a command takes a call, the first eight digits of its id are enough if no other call begins with
them. `eval "$(callgate completion bash)"` completes words of bash; zsh and fish have a script as well.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error of callgate, a check failed, or nothing matched |
| 2 | wrong usage, or settings that cannot work |
| 130 | interrupted |

The client has most commands. `worker`, `migrate` and `flower` are in `callgate-worker`. `up`, `demo` and `simulator`
are for developers, and need its extras `embedded` and `demo`, or a checkout.
"""
END = "\nThis page is written from the parser by `make pages`.\n"


def page() -> str:
    """The whole page."""
    root = get_command(build_app())
    return INTRODUCTION + "".join(_sections(root)) + END


def _leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        if inner.hidden:
            continue
        if hasattr(inner, "commands"):
            yield from _leaves(inner, (*words, name))
        else:
            yield (*words, name), inner


def _sections(root: Any) -> Iterator[str]:
    for words, command in _leaves(root, ()):
        yield f"\n## `callgate {' '.join(words)}`\n\n{_help(command.help)}\n"
        shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        if shown:
            yield "\n| argument or option | default | meaning |\n|---|---|---|\n"
            yield from map(_row, shown)


def _help(text: str | None) -> str:
    """The help as it is shown in a terminal."""
    return re.sub(r"^\x08$\n?", "", (text or "").strip(), flags=re.MULTILINE)


def _row(param: Any) -> str:
    return f"| {_name(param)} | {_default(param)} | {_cell(param.help or '')} |\n"


def _name(param: Any) -> str:
    if isinstance(param, TyperArgument):
        return f"`{(param.metavar or param.name).upper().strip('[]')}`"
    value = "" if param.is_flag else f" {(param.metavar or param.name).upper()}"
    names = ", ".join([*param.opts, *param.secondary_opts])
    return f"`{_cell(names + value)}`"


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if param.default in (None, False, [], ()) or callable(param.default):
        return ""
    return f"`{_cell(str(getattr(param.default, 'value', param.default)))}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
