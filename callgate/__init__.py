"""LLM calls as Celery tasks: none paid twice, no budget overrun, none unrecorded, none lost."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from callgate.version import __version__

if TYPE_CHECKING:
    from callgate.client import Client, Handle
    from callgate.domain.call_order import Priority
    from callgate.domain.errors import (
        BrokerUnavailable,
        BudgetExhausted,
        BudgetHeld,
        BudgetNoPeriod,
        BudgetNotConfigured,
        BudgetRefused,
        BudgetTooSmall,
        CallFailed,
        CallgateError,
        CallNotFound,
        CallRejected,
        ConfigurationError,
        IdempotencyMismatch,
        InputTooLarge,
        InvalidLink,
        InvalidRequest,
        InvalidSchema,
        LedgerUnavailable,
        MissingOutputBound,
        NotMigrated,
        NotPermitted,
        OrganisationBusy,
        OrganisationFrozen,
        ResultInvalid,
        ResultPurged,
        TooManyPages,
        Unavailable,
        UnknownCallType,
        UnknownModel,
        UnknownProvider,
        UnpricedModel,
        WaitTimeout,
    )
    from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
    from callgate.domain.requests import LLMRequest, LLMResult, Usage

__all__ = [
    "BrokerUnavailable",
    "BudgetExhausted",
    "BudgetHeld",
    "BudgetNoPeriod",
    "BudgetNotConfigured",
    "BudgetRefused",
    "BudgetTooSmall",
    "CallFailed",
    "CallNotFound",
    "CallRejected",
    "CallgateError",
    "Client",
    "ConfigurationError",
    "Handle",
    "IdempotencyMismatch",
    "InputTooLarge",
    "InvalidLink",
    "InvalidRequest",
    "InvalidSchema",
    "LLMRequest",
    "LLMResult",
    "LedgerUnavailable",
    "Message",
    "MissingOutputBound",
    "NotMigrated",
    "NotPermitted",
    "OrganisationBusy",
    "OrganisationFrozen",
    "Priority",
    "ReasoningBlock",
    "ResultInvalid",
    "ResultPurged",
    "TooManyPages",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Unavailable",
    "UnknownCallType",
    "UnknownModel",
    "UnknownProvider",
    "UnpricedModel",
    "Usage",
    "WaitTimeout",
    "__version__",
]

_OTHERS = {
    "Client": "callgate.client",
    "Handle": "callgate.client",
    "LLMRequest": "callgate.domain.requests",
    "LLMResult": "callgate.domain.requests",
    "Message": "callgate.domain.messages",
    "Priority": "callgate.domain.call_order",
    "ReasoningBlock": "callgate.domain.messages",
    "Tool": "callgate.domain.messages",
    "ToolCall": "callgate.domain.messages",
    "ToolChoice": "callgate.domain.messages",
    "Usage": "callgate.domain.requests",
}
"""Where the names are that are no errors."""


def __getattr__(name: str) -> Any:
    """
    Import what a name stands for when it is first used.

    So requests, results and errors need no Celery and no database driver, and the plugin of pytest needs nothing.
    """
    if name.startswith("__"):
        raise AttributeError(f"module 'callgate' has no attribute {name!r}")
    errors = import_module("callgate.domain.errors")
    if name in __all__ or name in errors.OLD_NAMES:
        return getattr(import_module(_OTHERS[name]) if name in _OTHERS else errors, name)
    raise AttributeError(f"module 'callgate' has no attribute {name!r}")
