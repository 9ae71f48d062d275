"""LLM calls as Celery tasks: none paid twice, no budget overrun, none unrecorded, none lost."""

from typing import TYPE_CHECKING, Any

from callgate.domain import errors
from callgate.domain.errors import (
    BrokerUnavailable,
    BudgetExhausted,
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
    UnknownModel,
    UnknownProvider,
    UnpricedModel,
    WaitTimeout,
)
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.requests import LLMRequest, LLMResult, Usage
from callgate.domain.turns import Priority

if TYPE_CHECKING:
    from callgate.client import Client, Handle

__version__ = "0.1.0"

__all__ = [
    "BrokerUnavailable",
    "BudgetExhausted",
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
    "UnknownModel",
    "UnknownProvider",
    "UnpricedModel",
    "Usage",
    "WaitTimeout",
]


def __getattr__(name: str) -> Any:
    """Import the client on first use: requests, results and errors need no Celery and no database driver."""
    if name in ("Client", "Handle"):
        from callgate import client

        return getattr(client, name)
    if name in errors.OLD_NAMES:
        return getattr(errors, name)
    raise AttributeError(f"module 'callgate' has no attribute {name!r}")
