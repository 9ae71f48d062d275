"""JSON objects that are kept as text, in the caller's key order, because that order changes answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite
from typing import Any

TEXT_MAX_BYTES = 256 * 1024


def object_text(value: object, name: str) -> object:
    """
    Convert a dict or JSON text to compact JSON text in its key order. None stays None.

    Args:
        name: What it is, with an article, for messages: `a response schema`.

    Raises:
        ValueError: It is neither, or cannot be written as JSON in UTF-8, or has more than `TEXT_MAX_BYTES` bytes.
    """
    if value is None:
        return None
    if isinstance(value, str):
        # Before parsing: megabytes of text would take seconds, and gigabytes of memory.
        check_length(value, name)
        value = _loaded(value, name)
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be a JSON object")
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a dict or JSON text")
    text = _json_text(value, name)
    check_length(text, name)
    return text


def check_length(text: str, name: str) -> None:
    """ValueError for a text of more than `TEXT_MAX_BYTES` bytes."""
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX_BYTES:
        raise ValueError(f"{name} has at most {TEXT_MAX_BYTES} bytes")


def _loaded(text: str, name: str) -> object:
    """Parse a text. ValueError also if it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as exc:
        raise ValueError(f"{name} is nested too deeply") from exc


def _json_text(value: dict[str, Any], name: str) -> str:
    """Compact JSON in the given key order. ValueError for NaN, Infinity, other objects and deep nesting."""
    try:
        return _dumped(value, name)
    except RecursionError as exc:
        raise ValueError(f"{name} is nested too deeply") from exc


def _dumped(value: dict[str, Any], name: str) -> str:
    """Write an object as JSON. The ValueError names the value that is not JSON."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError) as exc:
        why = _not_json(value, "$") or exc
        raise ValueError(f"{name} cannot be written as JSON: {why}") from exc
    return text


def _not_json(value: object, path: str) -> str | None:
    """Describe the first value that JSON or UTF-8 cannot represent, with its path; None if there is none."""
    children: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        if name := next((key for key in value if _has_lone_surrogate(key)), None):
            return f"a name in {path} has a lone surrogate: {name!a}"
        children = ((f"{path}.{key}", child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        children = ((f"{path}[{n}]", child) for n, child in enumerate(value))
    elif isinstance(value, float) and not isfinite(value):
        return f"{path} is {value}"
    elif _has_lone_surrogate(value):
        return f"{path} has a lone surrogate"
    elif value is not None and not isinstance(value, str | int | float):
        return f"{path} is a {type(value).__name__}"
    return next((why for where, child in children if (why := _not_json(child, where))), None)


def _has_lone_surrogate(text: object) -> bool:
    return isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text)
