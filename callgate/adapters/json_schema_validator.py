"""
JSON Schema checks by the jsonschema-rs package, which is offline here and bounded in every direction that it allows.

The text to check comes from a model, so its size and nesting are limited before anything walks it, and a pattern
may backtrack only so often. A schema comes from the caller and is compiled once: it must be whole (a `$ref` to
another document is refused, never fetched) and its own patterns must stay within the engine's size limit.

A `pattern` is read as Pydantic's own engine reads it: an answer that the caller's model takes must not be paid for
twice. JSON Schema's `\\w`, `\\d` and `\\s` know little beyond ASCII, Pydantic's know every alphabet. A pattern that
this engine does not know (one that looks around or back) is read by jsonschema-rs.

What a schema may cost is bounded before (`domain.schema_cost`), but not what it and a text may cost together: workers
check answers in a process of its own, whose time and memory are limited.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import pydantic_core
from jsonschema_rs import FancyRegexOptions, ValidationError, Validator, validator_for
from pydantic_core import core_schema

from callgate.domain.answers import Answer, Finding

TEXT_CHARS_MAX = 8_000_000
"""Eight characters for each of a million tokens, the most a request may ask for."""
DEPTH_MAX = 100
"""Arrays and objects within each other, in the text."""
BACKTRACKS_MAX = 100_000
"""Steps back that one pattern may take on one string: milliseconds. Patterns without look-around never step back."""
COMPILED_MAX = 64
"""Schemas kept compiled; a schema has at most 256 KiB."""
PATH_PARTS_MAX = 20
REGEX_OPTIONS = FancyRegexOptions(backtrack_limit=BACKTRACKS_MAX)


class JsonSchemaValidator:
    """Checks JSON text against JSON Schemas (Draft 4 to 2020-12; `format` is an annotation). Thread-safe."""

    def __init__(self) -> None:
        self._compiled = lru_cache(maxsize=COMPILED_MAX)(_compile)

    def check_schema(self, schema: str) -> str | None:
        """Say what is wrong with the schema itself, or None."""
        compiled = self._compiled(schema)
        return compiled if isinstance(compiled, str) else None

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[Finding]:
        """Check answers here, however long it takes; see `OutputValidatorPort`."""
        return [
            next(filter(None, (self.check(answer.schema, text) for text in answer.texts)), None)
            for answer in answers
        ]

    def check(self, schema: str, text: str) -> str | None:
        """Say where the text first breaks the schema (a path and a keyword, never the text itself), or None."""
        compiled = self._compiled(schema)
        if isinstance(compiled, str):
            return compiled
        if len(text) > TEXT_CHARS_MAX:
            return f"has {len(text)} characters, over {TEXT_CHARS_MAX}"
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return "is no JSON"
        if _is_deeper_than(DEPTH_MAX, value, text):
            return f"is nested deeper than {DEPTH_MAX}"
        return _first_break(compiled, value, schema)


def _compile(schema: str) -> Validator | str:
    """The compiled schema, or what is wrong with it."""
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
        return "is no JSON Schema, or is nested too deeply"


class _Pattern:
    """The keyword `pattern`, as `jsonschema_rs` asks for a keyword: a class that is made with its value."""

    def __init__(self, _schema: object, pattern: object, _path: object) -> None:
        self._fits = _in_pydantic(pattern) if isinstance(pattern, str) else _in_json_schema(pattern)

    def validate(self, instance: object) -> None:
        if isinstance(instance, str) and not self._fits(instance):
            raise ValueError


@lru_cache(maxsize=COMPILED_MAX)
def _in_pydantic(pattern: str) -> Callable[[str], bool]:
    try:
        return pydantic_core.SchemaValidator(
            core_schema.str_schema(pattern=pattern)
        ).isinstance_python
    except pydantic_core.SchemaError:
        return _in_json_schema(pattern)


def _in_json_schema(pattern: object) -> Callable[[object], bool]:
    schema = json.dumps({"pattern": pattern})
    return validator_for(schema, offline=True, pattern_options=REGEX_OPTIONS).is_valid


def _first_break(validator: Validator, value: object, schema: str) -> str | None:
    try:
        validator.validate(value)
    except ValidationError as exc:
        # A property the schema does not name comes from the text, which must not appear in messages.
        named = [
            part if isinstance(part, int) or json.dumps(part, ensure_ascii=False) in schema else "*"
            for part in exc.instance_path
        ]
        return f"{_path(named)}: {_keyword(exc)}"
    except ValueError:
        return "is no JSON that can be checked"
    return None


def _keyword(exc: ValidationError) -> str:
    if exc.kind.name == "$ref":
        return "a $ref or $schema names what is not in the schema"
    return f"breaks {exc.kind.name!r}"


def _path(parts: Iterable[str | int]) -> str:
    """`$.lines[3].total`, cut to a bounded length."""
    shown = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts]
    rest = "..." if len(shown) > PATH_PARTS_MAX else ""
    return "$" + "".join(shown[:PATH_PARTS_MAX]) + rest


def _is_deeper_than(depth_max: int, value: object, text: str) -> bool:
    """Walk level by level, without recursion; a text with few brackets cannot be deep."""
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
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(name)
