"""Names that were replaced: for one release they answer with what replaced them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

OLD_NAMES = {"NoBudget": "is now BudgetNotConfigured", "BudgetNeverFits": "is now BudgetTooSmall"}
"""Old names of errors, and what replaced them."""


def refuse_old_name(module: str, old_names: Mapping[str, str], name: str) -> NoReturn:
    """
    Refuse a name that a module lacks; the `__getattr__` of a module calls it.

    Args:
        old_names: What became of each old name.

    Raises:
        ImportError: It is an old name. Python replaces the message of an AttributeError in a `from` import, and keeps
            this one.
        AttributeError: There never was such a name.
    """
    if what := old_names.get(name):
        raise ImportError(f"{module}.{name} {what}", name=module)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
