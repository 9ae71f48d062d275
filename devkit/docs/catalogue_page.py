"""The page of the catalogue, from the classes that read it."""

from __future__ import annotations

from pydantic import BaseModel

from callgate.domain.alert_rules import AlertRules, OrganisationAlerts
from callgate.domain.catalogue import (
    CallTypePolicy,
    LimitEntry,
    Organisation,
    Organisations,
    OrgRetention,
    ProviderEntry,
    Retention,
)
from callgate.domain.price_entry import PriceEntry
from devkit.docs.fields import rows_of, table

INTRODUCTION = """\
# Catalogue

The catalogue is one TOML file that operators write. It declares providers, call types, prices, limits, retention and
alerts. It is read once at start, so restart workers and clients after a change; an unknown key or a wrong value stops
the process and names the file and the key. `CALLGATE_CATALOGUE` names the file. Without it a worker reads the file that
it comes with, and a client has the defaults of this page and the provider `openai`. [Providers](../providers.md) lists
the presets.

`config/catalogue.toml` has every table as an example.

`only_named_call_types = true`, before the first table, refuses requests whose call type has no table of its own, as
`unknown_call_type`. Without it a misspelt call type has the rules of `[default]`. Set it for clients and workers.

"""
TABLES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("[providers.NAME]", "One endpoint with one account. Values of its preset lie below these.", ProviderEntry),
    ("[default]", "Limits of all call types without a table of their own.", CallTypePolicy),
    ("[call_types.NAME]", "The same keys. One that is not there has the default of this page, not that of `[default]`.",
     CallTypePolicy),
    ("[[prices]]", "A price of your own, or a model that is free; see [prices](../prices.md).", PriceEntry),
    ("[[limits]]", "What one key of a provider may use; see [flow control](../flow-control.md).", LimitEntry),
    ("[organisations]", "What every organisation may have.", Organisations),
    ("[organisations.orgs.NAME]", "What one organisation may have instead.", Organisation),
    ("[retention]", "Without this table nothing is ever deleted.", Retention),
    ("[retention.orgs.NAME]", "Retention that one organisation agreed to.", OrgRetention),
    ("[alerts]", "From when on something is alerted; see [alerts](../alerts.md).", AlertRules),
    ("[alerts.orgs.NAME]", "Other thresholds of one organisation; none: those of all.", OrganisationAlerts),
)  # fmt: skip
END = "\nThis page is written from `callgate/domain/catalogue.py` and its neighbours by `make pages`.\n"


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "\n".join(map(_section, TABLES)) + END


def _section(entry: tuple[str, str, type[BaseModel]]) -> str:
    name, meaning, model = entry
    keys = "" if name == "[call_types.NAME]" else "\n" + table(rows_of(model))
    return f"## `{name}`\n\n{meaning}\n{keys}"
