"""The page of settings, from the classes that read them."""

from __future__ import annotations

from callgate.settings import EMBEDDED, PREFIX, RENAMED, WORKER_PREFIX, ClientSettings
from config.settings import OPENAI_KEY_VARIABLE, WorkerOptions
from devkit.docs.fields import rows_of, table

INTRODUCTION = f"""\
# Settings

Settings are variables of the environment, read once at start. An unknown `{PREFIX}*` variable is an error with a
suggestion, an empty one counts as not set, and a value out of bounds names its variable. What calls may do is in the
[catalogue](catalogue.md).

A value is written as text; the number of seconds may have a fraction. "True or false" is `true` or `false`. "Secret"
is text that no log line, message or page shows.

## Client and worker

Both read these. A pipeline needs no others.

"""
WORKER = """
## Worker

Workers, Flower, `callgate migrate` and the doctor read these too. A client ignores them.

"""
OTHERS = f"""
## Other variables

| name | meaning |
|---|---|
| `{EMBEDDED}` | `1`: URLs and catalogue are those of the `callgate up` that runs in `{WORKER_PREFIX}DATA_DIR`. |
| `{OPENAI_KEY_VARIABLE}` | The key of the provider `openai`, if `{WORKER_PREFIX}CREDENTIALS__OPENAI` is not set. |
| `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | Proxies of requests to providers, also in lower case. |
| `SSL_CERT_FILE`, `SSL_CERT_DIR` | Certificates that requests to providers trust. |
| `OTEL_*` | Where traces go; see [tracing](../tracing.md). |

Variables that Kubernetes sets for a Service called callgate are ignored.

## Renamed

An old name is an error that says the new one.

| old | new |
|---|---|
"""
END = (
    "\nThis page is written from `callgate/settings.py` and `config/settings.py` by `make pages`.\n"
)


def page() -> str:
    """The whole page."""
    renamed = "".join(f"| `{old}` | `{new}` |\n" for old, new in RENAMED.items())
    return (
        INTRODUCTION
        + table(rows_of(ClientSettings, PREFIX, is_upper=True))
        + WORKER
        + table(rows_of(WorkerOptions, WORKER_PREFIX, is_upper=True))
        + OTHERS
        + renamed
        + END
    )
