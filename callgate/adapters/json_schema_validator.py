"""
Checks answers against JSON Schemas with the jsonschema-rs package, offline and within limits.

The text comes from a model: its size and nesting are limited before anything walks it, and patterns have a limit on
backtracking. The schema comes from the caller and is compiled once. It must be complete (a `$ref` to another document
is refused and never fetched), and its patterns must stay within the engine's size limit.

`pattern` uses Pydantic's own engine: an answer that the caller's model accepts must not be rejected and paid for twice.
In JSON Schema `\\w`, `\\d` and `\\s` cover little more than ASCII; in Pydantic they cover every alphabet. Patterns
that Pydantic's engine does not support (look-around, back-references) use jsonschema-rs.

`domain.schema_cost` bounds the cost of a schema, but not of schema and text together. So workers check answers in a
child process with limits of time and memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import pydantic_core
from jsonschema_rs import (
    FancyRegexOptions,
    ValidationError,
    ValidationErrorKind,
    Validator,
    validator_for,
)
from pydantic_core import core_schema

from callgate.domain.answers import Answer, SchemaResult

TEXT_CHARS_MAX = 8_000_000
"""Eight characters for each of a million tokens, the highest `max_output_tokens`."""
DEPTH_MAX = 100
"""Nesting of arrays and objects in the text."""
BACKTRACKS_MAX = 100_000
"""Backtracking steps of one pattern on one string: milliseconds. Only patterns with look-around backtrack."""
COMPILED_MAX = 64
"""Compiled schemas that are cached. A schema has at most 256 KiB."""
COMPLAINTS_CHARS_MAX = 256 * 1024
"""Longer texts have one complaint."""
COMPLAINT_CHARS_MAX = 200
PATH_PARTS_MAX = 20
"""Parts of a path that a message shows."""
REGEX_OPTIONS = FancyRegexOptions(backtrack_limit=BACKTRACKS_MAX)


class JsonSchemaValidator:
    """Checks JSON text against JSON Schemas (Draft 4 to 2020-12; `format` is an annotation). Thread-safe."""

    def __init__(self) -> None:
        self._compiled = lru_cache(maxsize=COMPILED_MAX)(_compile)

    def check_schema(self, schema: str) -> str | None:
        """Explain what is wrong with the schema itself; None if nothing is."""
        compiled = self._compiled(schema)
        return compiled if isinstance(compiled, str) else None

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[SchemaResult]:
        """The faults of each answer, or None; see `OutputValidatorPort`. It ignores `within_s`."""
        return [
            next(filter(None, (self._checked(answer, text) for text in answer.texts)), None)
            for answer in answers
        ]

    def _checked(self, answer: Answer, text: str) -> str | None:
        why = self.check(answer.schema, text)
        return why and self.complaints(answer.schema, text, why, answer.complaints_max)

    def check(self, schema: str, text: str) -> str | None:
        """The first violation as a path and a keyword, never the text itself. None if the text is valid."""
        compiled = self._compiled(schema)
        if isinstance(compiled, str):
            return compiled
        if len(text) > TEXT_CHARS_MAX:
            return f"has {len(text)} characters, over {TEXT_CHARS_MAX}"
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return "is not JSON"
        if _is_deeper_than(DEPTH_MAX, value, text):
            return f"is nested deeper than {DEPTH_MAX}"
        return _first_violation(compiled, value, schema)

    def complaints(self, schema: str, text: str, first: str, most: int) -> str:
        """
        Up to `most` violations of a text, one per line; only the first one of a long text.

        This can take much longer than `check`, which ends at the first violation.

        Args:
            first: What `check` has found.
        """
        compiled = self._compiled(schema)
        if most <= 1 or isinstance(compiled, str) or len(text) > COMPLAINTS_CHARS_MAX:
            return first
        try:
            found = [_complaint(exc, schema) for exc in compiled.iter_errors(json.loads(text))]
        except (ValueError, RecursionError):
            return first
        return "\n".join(list(dict.fromkeys([first, *found]))[:most])


def _compile(schema: str) -> Validator | str:
    """The compiled schema, or a text that says what is wrong with it."""
    try:
        return validator_for(
            schema,
            offline=True,
            pattern_options=REGEX_OPTIONS,
            keywords={"pattern": _Pattern},
        )
    except ValidationError as exc:
        return f"{_path(exc.instance_path)}: {_keyword(exc)}"
    except ValueError:
        return "is not a JSON Schema, or is nested too deeply"


class _Pattern:
    """The keyword `pattern` as a custom keyword of `jsonschema_rs`."""

    def __init__(self, _schema: object, pattern: object, _path: object) -> None:
        self._matches = (
            _pydantic_matcher(pattern)
            if isinstance(pattern, str)
            else _json_schema_matcher(pattern)
        )

    def validate(self, instance: object) -> None:
        if isinstance(instance, str) and not self._matches(instance):
            raise ValueError


@lru_cache(maxsize=COMPILED_MAX)
def _pydantic_matcher(pattern: str) -> Callable[[str], bool]:
    """A function that matches a string as Pydantic does, or as jsonschema-rs where Pydantic cannot."""
    try:
        return pydantic_core.SchemaValidator(
            core_schema.str_schema(pattern=pattern)
        ).isinstance_python
    except pydantic_core.SchemaError:
        return _json_schema_matcher(pattern)


def _json_schema_matcher(pattern: object) -> Callable[[object], bool]:
    """A function that checks a value against `pattern` with jsonschema-rs."""
    schema = json.dumps({"pattern": pattern})
    return validator_for(schema, offline=True, pattern_options=REGEX_OPTIONS).is_valid


def _first_violation(validator: Validator, value: object, schema: str) -> str | None:
    """Path and keyword of the first violation; None if the value is valid."""
    try:
        validator.validate(value)
    except ValidationError as exc:
        return _complaint(exc, schema)
    except ValueError:
        return "is JSON that cannot be checked"
    return None


def _complaint(exc: ValidationError, schema: str) -> str:
    """Path and keyword of a violation. A property that is missing is named: its name is the caller's."""
    path = [*exc.instance_path]
    if isinstance(exc.kind, ValidationErrorKind.Required):
        path.append(exc.kind.property)
    # Property names that are not in the schema are text of the model, which must not appear in messages.
    named = [
        part if isinstance(part, int) or json.dumps(part, ensure_ascii=False) in schema else "*"
        for part in path
    ]
    # A name with a line end would look like two complaints.
    where = " ".join(_path(named)[:COMPLAINT_CHARS_MAX].splitlines())
    return f"{where}: {_keyword(exc)}"


def _keyword(exc: ValidationError) -> str:
    """The violated keyword as the end of a message."""
    if exc.kind.name == "$ref":
        return "a $ref or $schema names something that is not in the schema"
    return f"breaks {exc.kind.name!r}"


def _path(parts: Iterable[str | int]) -> str:
    """The path as text, cut to `PATH_PARTS_MAX` parts: `$.lines[3].total`."""
    shown = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts]
    rest = "..." if len(shown) > PATH_PARTS_MAX else ""
    return "$" + "".join(shown[:PATH_PARTS_MAX]) + rest


def _is_deeper_than(depth_max: int, value: object, text: str) -> bool:
    """True if the value is nested deeper than `depth_max`. It walks by level, because recursion could overflow."""
    if text.count("[") + text.count("{") <= depth_max:
        return False
    level = [value]
    for _ in range(depth_max):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return any(isinstance(leaf, dict | list) for leaf in level)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python accepts and JSON does not have."""
    raise ValueError(name)
