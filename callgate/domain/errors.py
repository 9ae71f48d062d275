"""
Every error callgate raises, and nothing else.

* CallgateError                 code: stable; programs may store it and alert on it
  + InvalidRequest              the caller's mistake; nothing was stored, nothing was paid
    - UnknownProvider, UnknownModel, UnknownCallType, UnpricedModel, MissingOutputBound
    - InputTooLarge, TooManyPages, InvalidSchema, InvalidLink, IdempotencyMismatch, AmbiguousCall
    - UnknownTimeZone, RowRefused, InvalidAmount, InvalidBills, ChangedMeanwhile, CountDiffers, InvalidWords
  + BudgetRefused               a budget refused the call; carries a `BudgetRefusal`
    - BudgetExhausted, BudgetHeld, BudgetTooSmall, BudgetNoPeriod, BudgetNotConfigured
  + OrganisationBusy            the organisation has too many open calls; what there was room for is stored
  + OrganisationFrozen          an operator has frozen the organisation; nothing was stored
  + OutputUnchecked             an answer could not be checked against its schema
    - SchemaTooCostly
  + CallFailed                  the call ended dead; carries its last failure
  + CallRejected                the call ended without an answer: cancelled, discarded, or refused by a worker
  + RedriveRefused              a redrive was not planned or changed as asked; nothing was changed
    - TooManyRedrives, RedriveNotFound, RedriveStateDiffers, SecondPaymentNotAllowed
  + CallNotFound, OrgNotFound, ResultPurged, ResultInvalid, WaitTimeout
  + Unavailable                 nothing is known to have been accepted; calling again is safe
    - LedgerUnavailable, BrokerUnavailable, CheckerUnavailable
  + WebhookFailed               the operator's URL did not accept a message about an alert; it is sent again
  + ConfigurationError          at start only: the process must not start
    - NotMigrated, NotPermitted

Constructors take positional arguments and pass all of them on, so that each error survives pickling and Celery's
encoding with its fields. Messages never hold prompt text or secrets.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from callgate.domain.budgets import BudgetRefusal, RefusalReason
from callgate.domain.old_names import OLD_NAMES, refuse_old_name


class CallgateError(Exception):
    """The root of callgate's errors."""

    code: ClassVar[str] = "callgate_error"


class InvalidRequest(CallgateError):
    """The request can never be accepted as it is."""

    code = "invalid_request"


class UnknownProvider(InvalidRequest):
    """The catalogue has no provider of this name."""

    code = "unknown_provider"


class UnknownModel(InvalidRequest):
    """The call type does not allow this model."""

    code = "unknown_model"


class UnknownCallType(InvalidRequest):
    """The catalogue does not name this call type, and takes only those that it names."""

    code = "unknown_call_type"


class UnpricedModel(InvalidRequest):
    """No price is known, so no hold could be an upper bound of the cost."""

    code = "unpriced_model"


class MissingOutputBound(InvalidRequest):
    """Neither the request nor its call type limits the output tokens."""

    code = "missing_output_bound"


class InputTooLarge(InvalidRequest):
    """The messages are larger than the call type allows."""

    code = "input_too_large"


class TooManyPages(InvalidRequest):
    """The document has more pages than the call type allows."""

    code = "too_many_pages"


class InvalidSchema(InvalidRequest):
    """The response schema is not a JSON Schema that could be sent."""

    code = "invalid_schema"


class InvalidLink(InvalidRequest):
    """Another process could not publish the link."""

    code = "invalid_link"


class IdempotencyMismatch(InvalidRequest):
    """The idempotency key was used before, for another request."""

    code = "idempotency_mismatch"


class InvalidAmount(InvalidRequest):
    """The amount cannot be what a provider billed."""

    code = "invalid_amount"


class InvalidBills(InvalidRequest):
    """A file of bills has invalid lines; none of its bills was settled."""

    code = "invalid_bills"


class InvalidWords(InvalidRequest):
    """The words of a search cannot be read: the message says which, and what is expected."""

    code = "invalid_words"


class AmbiguousCall(InvalidRequest):
    """Several calls begin with these digits: the message lists them."""

    code = "ambiguous_call"


class ChangedMeanwhile(InvalidRequest):
    """It is not any more as the operator saw it; nothing was changed. The message says how it is now."""

    code = "changed_meanwhile"


class UnknownTimeZone(InvalidRequest):
    """Postgres knows no time zone of this name."""

    code = "unknown_time_zone"


class RowRefused(InvalidRequest):
    """Postgres refused a value of this row. If a batch is refused, halving the batch finds the row."""

    code = "row_refused"


class BudgetRefused(CallgateError):
    """A budget had no headroom for the worst-case cost of the call."""

    code = "budget_refused"

    def __init__(self, refusal: BudgetRefusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal

    def __str__(self) -> str:
        return str(self.refusal)


class BudgetExhausted(BudgetRefused):
    """The budget of the period is spent."""

    code = "budget_exhausted"


class BudgetHeld(BudgetRefused):
    """Calls in flight held the budget for as long as the call may wait (`wait_max_s`)."""

    code = "budget_held"


class BudgetTooSmall(BudgetRefused):
    """The call costs more than the whole budget of a period."""

    code = "budget_too_small"


class BudgetNoPeriod(BudgetRefused):
    """The period has ended and the next cannot begin: Postgres does not know the budget's time zone any more."""

    code = "budget_no_period"


class BudgetNotConfigured(BudgetRefused):
    """The organisation has no budget, and no default budget is set."""

    code = "budget_not_configured"


class OrganisationBusy(CallgateError):
    """The organisation has so many open calls that it may create no more for now."""

    code = "organisation_busy"

    def __init__(self, org_id: str, open_calls: int, open_calls_max: int) -> None:
        super().__init__(org_id, open_calls, open_calls_max)
        self.org_id = org_id
        self.open_calls = open_calls
        self.open_calls_max = open_calls_max

    def __str__(self) -> str:
        return (
            f"organisation {self.org_id!r} has {self.open_calls} open calls and may have {self.open_calls_max}: "
            'submit again when some have ended, or with on_busy="wait"'
        )


class OrganisationFrozen(CallgateError):
    """An operator lets the organisation submit nothing new. The message says why. Submit again after the freeze."""

    code = "organisation_frozen"


class OutputUnchecked(CallgateError):
    """No process was available to check the answer. It is paid, but may not fit its schema."""

    code = "output_unchecked"


class SchemaTooCostly(OutputUnchecked):
    """Checking the answer took more time or memory than one call may use."""

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
    """The call ended without an answer; `reason_code` is `cancelled`, `discarded` or the code of a refusal."""

    code = "call_rejected"

    def __init__(self, message: str, reason_code: str) -> None:
        super().__init__(message, reason_code)
        self.message = message
        self.reason_code = reason_code

    def __str__(self) -> str:
        return f"{self.reason_code}: {self.message}"


class CallNotFound(CallgateError):
    """The ledger has no such call."""

    code = "call_not_found"


class RedriveRefused(CallgateError):
    """A redrive was not planned or changed as asked; nothing was changed."""

    code = "redrive_refused"


class TooManyRedrives(RedriveRefused):
    """So many redrives have not ended that no other can be planned: abort some."""

    code = "too_many_redrives"


class RedriveNotFound(RedriveRefused):
    """The ledger has no such redrive."""

    code = "redrive_not_found"


class RedriveStateDiffers(RedriveRefused):
    """The redrive is in a state in which it cannot be changed like that; somebody else may have changed it."""

    code = "redrive_state_differs"


class SecondPaymentNotAllowed(RedriveRefused):
    """Calls of the redrive may be billed a second time, and the operator has neither agreed nor left them out."""

    code = "second_payment_not_allowed"


class CountDiffers(InvalidRequest):
    """Something else matches than the operator expects; nothing was changed."""

    code = "count_differs"

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        if not self.found:
            return "nothing matches any more"
        return f"you expect {self.expected}, and {self.found} match: look at the list again"


class OrgNotFound(CallgateError):
    """The ledger has no call of this organisation."""

    code = "org_not_found"


class ResultPurged(CallgateError):
    """The call succeeded, but retention has removed its answer."""

    code = "result_purged"


class ResultInvalid(CallgateError):
    """The stored answer does not fit the caller's Pydantic model, or is incomplete; `force=True` gets another."""

    code = "result_invalid"


class WaitTimeout(CallgateError, TimeoutError):
    """The call was still open when the timeout ended; the call goes on."""

    code = "wait_timeout"


class Unavailable(CallgateError):
    """A server or a child process did not answer in time."""

    code = "unavailable"


class LedgerUnavailable(Unavailable):
    """Postgres did not answer. A submission is not known to be accepted; submitting again is safe."""

    code = "ledger_unavailable"


class BrokerUnavailable(Unavailable):
    """The broker did not answer; calls that the ledger has accepted will still be run."""

    code = "broker_unavailable"


class CheckerUnavailable(Unavailable):
    """No process is available now to check answers; the attempts are settled later."""

    code = "checker_unavailable"


class ConfigurationError(CallgateError):
    """The settings cannot work; the process must not start."""

    code = "configuration_error"


class WebhookFailed(CallgateError):
    """A message about an alert was not accepted, or that is not known."""

    code = "webhook_failed"

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        """How long the receiver asks to wait."""


class NotMigrated(ConfigurationError):
    """The database has no tables of callgate: run `callgate migrate`."""

    code = "not_migrated"


class NotPermitted(ConfigurationError):
    """The database login of this process lacks a right: the message names the logins that have it."""

    code = "not_permitted"


BUDGET_ERRORS: dict[RefusalReason, type[BudgetRefused]] = {
    RefusalReason.HELD: BudgetHeld,
    RefusalReason.EXHAUSTED: BudgetExhausted,
    RefusalReason.TOO_SMALL: BudgetTooSmall,
    RefusalReason.NO_PERIOD: BudgetNoPeriod,
    RefusalReason.NOT_CONFIGURED: BudgetNotConfigured,
}
"""The error for each reason that ends a call. A call refused as HELD waits first, at most `wait_max_s`."""

__getattr__ = partial(refuse_old_name, __name__, OLD_NAMES)
