"""The fields of settings and catalogue tables: what the pages of the reference say about each."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

UNITS = {
    "_s": "seconds",
    "_bytes": "bytes",
    "_usd": "USD",
    "_days": "days",
    "_months": "months",
    "_per_million": "USD per million tokens",
}
"""What a number is counted in, by the end of its name."""
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
LONG_CHARS_MAX = 60


@dataclass(frozen=True, slots=True)
class Row:
    """What a page says about one field."""

    name: str
    kind: str
    default: str
    meaning: str


def rows_of(model: type[BaseModel], prefix: str = "", *, is_upper: bool = False) -> Iterator[Row]:
    """The fields of a model that hold values, in order; tables of their own are left out."""
    meanings = docstrings(model)
    for name, field in model.model_fields.items():
        if not is_table(field.annotation):
            shown = prefix + (name.upper() if is_upper else name)
            yield Row(shown, _kind(name, field), _default(name, field), meanings.get(name, ""))


def is_table(annotation: Any) -> bool:
    """True for a model, and for a mapping or a list of models."""
    return any(isinstance(a, type) and issubclass(a, BaseModel) for a in _leaves(annotation))


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text below each field, of the model and of those that it inherits from, in one line."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (issubclass(cls, BaseModel) and cls.model_fields):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in pairwise(body.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                    value=ast.Constant(value=said)
                ):
                    texts[name] = " ".join(str(said).split())
    return texts


def table(rows: Iterator[Row]) -> str:
    """A table in Markdown."""
    head = "| name | value | default | meaning |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{row.name}` | {_cell(row.kind)} | {_cell(row.default)} | {_cell(row.meaning)} |\n" for row in rows
    )  # fmt: skip


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types within an annotation."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        arguments = arguments[:1]
    if get_origin(annotation) is Literal or not arguments:
        yield annotation
        return
    for argument in arguments:
        yield from _leaves(argument)


def _kind(name: str, field: FieldInfo) -> str:
    """What a value is, in what unit, and its bounds."""
    kind = _type(field.annotation)
    if kind == "number":
        kind = next((unit for end, unit in UNITS.items() if end in _ends(name)), "number")
    bounds = [
        f"{sign} {_number(name, value)}"
        for item in field.metadata
        for attribute, sign in SIGNS.items()
        if (value := getattr(item, attribute, None)) is not None
    ]
    return ", ".join([kind, *bounds])


def _ends(name: str) -> Iterator[str]:
    """The ends of a name that can be units; `max` and `min` come before the unit, or last."""
    name = re.sub(r"_(max|min)$", "", name)
    return (name[at:] for at in range(len(name)) if name[at] == "_")


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin in (tuple, list):
        inner = _type(arguments[0])
        return f"a list of {'numbers' if inner == 'number' else inner}"
    if origin is dict:
        return f"{_type(arguments[1])} by {_type(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    names = {bool: "true or false", SecretStr: "secret", Path: "path", date: "date", str: "text"}
    return names.get(annotation, "number")


def _number(name: str, value: float | Decimal) -> str:
    """With commas, except in a port."""
    whole = int(value) if value == int(value) else value
    return str(whole) if name.endswith("port") else f"{whole:,}"


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ("", (), {}):
        return "none"
    if isinstance(value, Path):
        return (
            f"`{value.name}`" if not value.is_absolute() else f"`{value.parent.name}/{value.name}`"
        )
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float | Decimal):
        return _number(name, value)
    if isinstance(value, tuple | dict):
        shown = ", ".join(f"`{getattr(item, 'value', item)}`" for item in value)
        return shown if len(shown) <= LONG_CHARS_MAX else f"{len(value)}: {shown}"
    return f"`{getattr(value, 'value', value)}`"
