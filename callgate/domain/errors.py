"""
Every error callgate raises, and nothing else.

* CallgateError                 code: stable, safe to store and to alert on
  + InvalidRequest              the caller's fault; nothing was recorded, nothing was paid
    - UnknownProvider, UnknownModel, UnpricedModel, MissingOutputBound
    - InputTooLarge, TooManyPages, InvalidSchema, InvalidLink, IdempotencyMismatch
    - UnknownTimeZone, RowRefused, InvalidAmount, InvalidBills
  + BudgetRefused               the ledger said no; carries a `BudgetRefusal`
    - BudgetHeld, BudgetExhausted, BudgetTooSmall, BudgetNoPeriod, BudgetNotConfigured
  + OutputUnchecked             an answer that could not be checked against its schema
    - SchemaTooCostly
  + CallFailed                  the call ended dead; carries its last failure
  + CallRejected                ended without an answer: cancelled, discarded, or refused by the worker
  + CallNotFound, OrgNotFound, ResultPurged, ResultInvalid, WaitTimeout
  + Unavailable                 nothing is known to have been accepted; calling again is safe
    - LedgerUnavailable, BrokerUnavailable, CheckerUnavailable
  + ConfigurationError          at start only: the process must not start
    - NotMigrated, NotPermitted

Constructors are positional and pass everything on, so that each error survives pickling and Celery's
encoding with its fields. Messages never hold prompt text or secrets.
"""

from __future__ import annotations

from typing import ClassVar

from callgate.domain.budgets import BudgetRefusal, RefusalReason


class CallgateError(Exception):
    """The root of callgate's errors."""

    code: ClassVar[str] = "callgate_error"


class InvalidRequest(CallgateError):
    """The request can never be accepted as it is."""

    code = "invalid_request"


class UnknownProvider(InvalidRequest):
    """No provider of this name is in the catalogue."""

    code = "unknown_provider"


class UnknownModel(InvalidRequest):
    """The call type does not allow this model, or no catalogue knows it."""

    code = "unknown_model"


class UnpricedModel(InvalidRequest):
    """No price is known, so no hold could be an upper bound."""

    code = "unpriced_model"


class MissingOutputBound(InvalidRequest):
    """Neither the request nor its call type says how many tokens may be written."""

    code = "missing_output_bound"


class InputTooLarge(InvalidRequest):
    """The messages are larger than the call type allows."""

    code = "input_too_large"


class TooManyPages(InvalidRequest):
    """The document has more pages than the call type allows."""

    code = "too_many_pages"


class InvalidSchema(InvalidRequest):
    """The response schema is no JSON Schema that could be sent."""

    code = "invalid_schema"


class InvalidLink(InvalidRequest):
    """The link is no signature that another process could publish."""

    code = "invalid_link"


class IdempotencyMismatch(InvalidRequest):
    """The idempotency key was used before, for another request."""

    code = "idempotency_mismatch"


class InvalidAmount(InvalidRequest):
    """No amount of money that could have been billed."""

    code = "invalid_amount"


class InvalidBills(InvalidRequest):
    """A file of bills has lines that cannot be meant; nothing of it was applied."""

    code = "invalid_bills"


class UnknownTimeZone(InvalidRequest):
    """The ledger knows no time zone of this name."""

    code = "unknown_time_zone"


class RowRefused(InvalidRequest):
    """Postgres refused a statement because of what is in it; of a batch, a smaller one finds the row."""

    code = "row_refused"


class BudgetRefused(CallgateError):
    """A budget had no room for the worst-case cost of the call."""

    code = "budget_refused"

    def __init__(self, refusal: BudgetRefusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal

    def __str__(self) -> str:
        return str(self.refusal)


class BudgetHeld(BudgetRefused):
    """Calls in flight hold the room; it may come back."""

    code = "budget_held"


class BudgetExhausted(BudgetRefused):
    """The period's money is spent."""

    code = "budget_exhausted"


class BudgetTooSmall(BudgetRefused):
    """The call could not fit even into an unused period."""

    code = "budget_too_small"


class BudgetNoPeriod(BudgetRefused):
    """The budget's period has ended, and its time zone is unknown to the ledger: an operator must set another."""

    code = "budget_no_period"


class BudgetNotConfigured(BudgetRefused):
    """The organisation has no budget, and the default policy is to refuse."""

    code = "budget_not_configured"


class OutputUnchecked(CallgateError):
    """For too long no process could be had that checks answers: this one was paid, and nobody knows whether it fits."""

    code = "output_unchecked"


class SchemaTooCostly(OutputUnchecked):
    """Checking an answer against its schema took more time or memory than one call may have."""

    code = "schema_too_costly"


class CallFailed(CallgateError):
    """The call is a dead letter: `failure_code` says why, after `attempts` attempts."""

    code = "call_failed"

    def __init__(self, message: str, failure_code: str, attempts: int) -> None:
        super().__init__(message, failure_code, attempts)
        self.message = message
        self.failure_code = failure_code
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.failure_code} after {self.attempts} attempt(s): {self.message}"


class CallRejected(CallgateError):
    """The call ended without an answer; `reason_code` is cancelled, discarded or a refusal's code."""

    code = "call_rejected"

    def __init__(self, message: str, reason_code: str) -> None:
        super().__init__(message, reason_code)
        self.message = message
        self.reason_code = reason_code

    def __str__(self) -> str:
        return f"{self.reason_code}: {self.message}"


class CallNotFound(CallgateError):
    """The ledger knows no such call."""

    code = "call_not_found"


class OrgNotFound(CallgateError):
    """The ledger has no call of this organisation."""

    code = "org_not_found"


class ResultPurged(CallgateError):
    """The call succeeded, but its text was removed by the retention policy."""

    code = "result_purged"


class ResultInvalid(CallgateError):
    """The stored answer does not fit the caller's Pydantic model, or is not whole; `force=True` gets another."""

    code = "result_invalid"


class WaitTimeout(CallgateError, TimeoutError):
    """The call was still open when the caller's patience ended; it goes on all the same."""

    code = "wait_timeout"


class Unavailable(CallgateError):
    """A service did not answer within its deadline."""

    code = "unavailable"


class LedgerUnavailable(Unavailable):
    """Postgres did not answer. At submit: not known to be accepted; submitting again is safe."""

    code = "ledger_unavailable"


class BrokerUnavailable(Unavailable):
    """The broker did not answer; what the ledger accepted will still be run."""

    code = "broker_unavailable"


class CheckerUnavailable(Unavailable):
    """No process could be had that checks answers: what waits for it is settled later."""

    code = "checker_unavailable"


class ConfigurationError(CallgateError):
    """The settings cannot work; the process must not start."""

    code = "configuration_error"


class NotMigrated(ConfigurationError):
    """The database lacks callgate's tables: run `callgate migrate`."""

    code = "not_migrated"


class NotPermitted(ConfigurationError):
    """The database login of this process lacks a right: the message names the logins that have it."""

    code = "not_permitted"


BUDGET_ERRORS: dict[RefusalReason, type[BudgetRefused]] = {
    RefusalReason.HELD: BudgetHeld,
    RefusalReason.EXHAUSTED: BudgetExhausted,
    RefusalReason.TOO_SMALL: BudgetTooSmall,
    RefusalReason.NO_PERIOD: BudgetNoPeriod,
    RefusalReason.NO_BUDGET: BudgetNotConfigured,
}
