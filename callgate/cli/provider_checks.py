"""The doctor's checks that connect to providers: are they reachable, and are their keys accepted?"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from callgate.cli.checkout import has_worker, worker_credentials
from callgate.domain.provider import Failure
from callgate.services.providers import key_checks
from callgate.services.reachability import Ways, reachable_check

if TYPE_CHECKING:
    from callgate.adapters.postgres.session import PostgresSession
    from callgate.client import Client
    from callgate.domain.catalogue import Catalogue
    from callgate.domain.ports import CredentialsPort
    from callgate.services.doctor import Check


def provider_checks(client: Client, session: PostgresSession) -> list[Check]:
    """The checks of providers: one for all keys, one for each key, one of connections."""
    from callgate.adapters.postgres.checks import may_run_calls

    catalogue = client.catalogue
    return [
        *key_checks(
            catalogue,
            partial(worker_credentials, client),
            partial(_ask, catalogue),
            may_run_calls=cache(partial(may_run_calls, session)),
        ),
        # A client has no protocol's SDK, and sends nothing.
        *([_reachable(client)] if has_worker() else []),
    ]


def _reachable(client: Client) -> Check:
    return reachable_check(
        client.catalogue, partial(worker_credentials, client), _ways(client.catalogue)
    )


def _ways(catalogue: Catalogue) -> Ways:
    from callgate.adapters.providers import adapter_class
    from callgate.adapters.providers.http.environment import has_proxy
    from callgate.adapters.providers.http.reachable import unreachable

    def base_url(name: str) -> str:
        entry = catalogue.providers[name]
        adapter = adapter_class(entry.protocol)
        return entry.base_url or str(getattr(adapter, "base_url", ""))

    return Ways(base_url, unreachable, has_proxy)


def _ask(
    catalogue: Catalogue, credentials: CredentialsPort, name: str, path: str
) -> Failure | None:
    from callgate.adapters.providers import adapter_class
    from callgate.adapters.providers.http.http_adapter import HTTPAdapter
    from callgate.adapters.providers.http.key_check import check_key

    entry = catalogue.providers[name]
    adapter = adapter_class(entry.protocol)(name, entry, credentials, connections_max=1)
    assert isinstance(adapter, HTTPAdapter)
    return check_key(adapter, path)
