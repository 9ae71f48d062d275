"""Checks of response schemas, loaded with the first schema: many pipelines have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callgate.adapters.json_schema_validator import JsonSchemaValidator


class SchemaChecks:
    """`SchemaValidatorPort`. Thread-safe."""

    def __init__(self) -> None:
        self._made: JsonSchemaValidator | None = None

    def check_schema(self, schema: str) -> str | None:
        """Explain what is wrong with the schema; None if nothing is."""
        if self._made is None:
            from callgate.adapters.json_schema_validator import JsonSchemaValidator

            # Without a lock: if two threads make one each, either will do.
            self._made = JsonSchemaValidator()
        return self._made.check_schema(schema)
