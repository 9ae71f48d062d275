"""Why nothing may be sent with what the worker has: no key, or an endpoint that the operator does not allow."""

from __future__ import annotations

from callgate.domain.access import Access, endpoint_fault
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure
from callgate.domain.remedies import key_todo


def why_refused(provider: str, entry: ProviderEntry, access: Access) -> Failure | None:
    """Why nothing may be sent. An own endpoint needs an own key, also where the provider needs none."""
    if access.endpoint is not None and endpoint_fault(access.endpoint, entry.org_endpoints):
        return _unsent(
            "endpoint_refused",
            f"{access.owner}'s own endpoint may not be used: the file {provider}.{access.owner}.url of"
            " CALLGATE_WORKER__CREDENTIALS_DIR must match org_endpoints of the provider in the catalogue",
        )
    if access.key is None and (entry.needs_key or access.endpoint is not None):
        name = f"{provider}.{access.owner}" if access.owner else provider
        todo = key_todo(name, has_folder=access.has_folder)
        return _unsent("missing_credentials", f"the worker has no API key {name}: {todo}")
    return None


def _unsent(code: str, message: str) -> Failure:
    return Failure(code, message, False, Billing.UNBILLED)
