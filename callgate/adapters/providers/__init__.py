"""
Adapters of provider protocols, one folder each. A folder's name is the protocol's name in the catalogue.

A folder's `__init__` has `ADAPTER`, the module and class of its adapter. It imports nothing, so that a protocol's SDK
is imported only where the catalogue uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from callgate.domain.errors import ConfigurationError
from callgate.domain.ports import LLMProviderPort


def adapter_class(protocol: str) -> Callable[..., LLMProviderPort]:
    """
    The class of a protocol's adapter.

    Raises:
        ConfigurationError: There is no such protocol.
    """
    try:
        module, name = import_module(f"{__package__}.{protocol}").ADAPTER
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"there is no provider protocol {protocol!r}") from exc
    adapter: Callable[..., LLMProviderPort] = getattr(
        import_module(f"{__package__}.{protocol}.{module}"), name
    )
    return adapter
