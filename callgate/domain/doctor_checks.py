"""
Every check of `callgate doctor`: what it looks at, and what to do if it finds something.

`docs/doctor.md` is written from this table by `python -m tests.support.doctor_page`. A test compares it with the checks
that the command makes.
"""

from __future__ import annotations

from dataclasses import dataclass

KEY_OF = "key of "
"""Checks of one provider's key begin with this."""


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """One check."""

    name: str
    meaning: str
    """What it looks at, and when it warns or fails."""
    todo: str
    """What to do if it warns or fails, unless the finding says something more exact."""


CHECKS = (
    CheckEntry(
        "settings",
        "The `CALLGATE_*` variables of a client. Fails if one is missing, unknown or out of bounds; then nothing else"
        " is checked.",
        "Correct the variable that is named.",
    ),
    CheckEntry(
        "worker settings",
        "The variables of a worker in this environment, and whether they go together with each other and with the"
        " deadlines of the catalogue. Fails if a worker would not start.",
        "Correct the variables that are named.",
    ),
    CheckEntry(
        "catalogue",
        "Which file it is, and its providers.",
        "Set CALLGATE_CATALOGUE to the file that the workers have.",
    ),
    CheckEntry(
        "database",
        "Whether Postgres answers, how fast, whether it is new enough, and how many of its connections are used."
        " Warns above 80 %.",
        "Check CALLGATE_DATABASE_URL, and that Postgres runs and lets this login in.",
    ),
    CheckEntry(
        "login",
        "The roles of this login, and for how many organisations it may submit. Warns if a client has none.",
        "Let the owner of the ledger run `callgate tenants grant` for this login.",
    ),
    CheckEntry(
        "clock",
        "How far the clock of this machine is from that of Postgres. Warns above 2 s. The ledger uses the clock of"
        " Postgres; deadlines that a client states, logs and TLS use the other one.",
        "Synchronise both machines (NTP).",
    ),
    CheckEntry(
        "server log",
        "Settings with which Postgres writes statements, and so prompts and answers, into its log.",
        "Set them for the server, or for each login with ALTER ROLE.",
    ),
    CheckEntry(
        "locks",
        "Whether workers may end the sessions of a client that takes all locks of the server.",
        "Do what the finding says; docs/security.md explains it.",
    ),
    CheckEntry(
        "transactions",
        "The oldest open transaction in this database. Warns above 5 minutes: vacuum removes no row that was"
        " replaced after it began, so the hot tables grow and claims get slow.",
        "End it where it was begun, or with pg_terminate_backend; set idle_in_transaction_session_timeout.",
    ),
    CheckEntry(
        "tables",
        "Dead rows of the hot tables, by Postgres's own statistics. Warns if there are more than 10,000 and more than"
        " half as many as live ones, or if autovacuum is off.",
        "Turn autovacuum on, end old transactions, then VACUUM the table.",
    ),
    CheckEntry(
        "partitions",
        "Whether the log has a partition for this month and the next, and whether its default partition has rows.",
        "Start a worker: its maintenance makes them. `maintenance.*` in its log says why it could not.",
    ),
    CheckEntry(
        "schema",
        "Whether the ledger is migrated to a schema that this version knows, and whether this login may use it.",
        "Run `callgate migrate`, or give CALLGATE_DATABASE_URL a login with one of the roles (docs/security.md).",
    ),
    CheckEntry(
        "workers",
        "Worker processes with a live lease, and whether their version, schema, settings and catalogue are the same,"
        " and the same as here. Warns if they differ, or if a lease ran out within the last hour although its worker"
        " was not stopped. Fails if calls wait and none is alive.",
        "Start `callgate worker`.",
    ),
    CheckEntry(
        "backlog",
        "Open calls by state and reason to wait. Warns if the oldest has been queued for more than a minute.",
        "See `workers`, `consumers` and `broker`; if these are `ok`, start more workers.",
    ),
    CheckEntry(
        "ended calls",
        "How the newest 20 calls of each of 500 organisations ended, if they were submitted in the last hour. Warns if"
        " some died or were rejected, other than by an operator.",
        "`callgate calls show` and `callgate dead-letters summary` say more.",
    ),
    CheckEntry(
        "settlement",
        "Attempts under way, and answers that are recorded and not settled. Warns if the oldest has waited for more"
        " than a minute.",
        "See whether a worker consumes callgate.log, and `settlement.*` in its log.",
    ),
    CheckEntry(
        "budgets",
        "Budgets whose period runs and that are spent or held by 80 % or more, and calls that wait for the next"
        " period, or were refused in the last quarter of an hour.",
        "Raise the limit with `callgate budgets set`; calls with on_budget=wait go on then, or in the next period."
        " Others are rejected, and must be submitted again. `callgate costs` says what was bought.",
    ),
    CheckEntry(
        "drift",
        "Whether budgets hold what the attempts under way hold. Fails if not: admission may be wrong by that amount.",
        "Run `callgate audit`, keep its output, and report it.",
    ),
    CheckEntry(
        "links",
        "Ended calls whose submitters were not told yet. Warns if one is overdue by more than a minute.",
        "See `links.*` in the worker's log. The cause is mostly the broker, or its user's rights to the pipeline's"
        " queue.",
    ),
    CheckEntry(
        "pauses",
        "What operators have paused or frozen.",
        "`callgate pauses` lists them; `callgate resume` or `callgate unfreeze` ends one.",
    ),
    CheckEntry(
        "breakers",
        "Providers, models and keys that take only probes now, since when, why, and how many calls wait.",
        "Remove the cause; the next probe closes it. `callgate breakers list` shows them.",
    ),
    CheckEntry(
        "limits",
        "Whether all live workers declare the same limits of providers.",
        "Give all workers the same catalogue, and restart the others.",
    ),
    CheckEntry(
        "unknown bills",
        "Attempts whose bill is unknown. They count at their whole hold.",
        "Compare with the provider's console: `callgate unknown summary`, then `callgate unknown settle`.",
    ),
    CheckEntry(
        "broker",
        "Whether Redis or Valkey answers, and whether it is new enough.",
        "Check CALLGATE_BROKER_URL, and that the broker runs.",
    ),
    CheckEntry(
        "item size",
        "Whether the broker refuses items of more than 1 MiB.",
        "Set proto-max-bulk-len to 1mb, so that a few large items cannot fill its memory.",
    ),
    CheckEntry(
        "rights",
        "Whether the broker's user may publish calls.",
        "Give it the rights that docs/security.md lists.",
    ),
    CheckEntry(
        "persistence",
        "Whether the broker keeps what it has through a restart. Sweeps publish lost calls again; links that"
        " pipelines have not taken would be lost.",
        "Set appendonly to yes.",
    ),
    CheckEntry(
        "eviction",
        "Whether the broker may drop queues when its memory is full, whether it has dropped anything, and how full it"
        " is. Warns above 90 %.",
        "Set maxmemory-policy to noeviction, and maxmemory to more than the queues need.",
    ),
    CheckEntry(
        "consumers",
        "Which Celery workers consume callgate's queues, by queue. Warns if one has none. Fails if a foreign worker"
        " takes callgate's messages.",
        "Start `callgate worker`. If one runs, it is frozen or has another CALLGATE_BROKER_URL or"
        " CALLGATE_BROKER_PREFIX.",
    ),
    CheckEntry(
        "tokenizer",
        "How tokens of a model are counted (`--model`).",
        "Name a model of the catalogue.",
    ),
    CheckEntry(
        "price",
        "Whether a model has a price (`--model`).",
        "Add the price under [[prices]] of the catalogue.",
    ),
    CheckEntry(
        "transport",
        "Certificate and proxy variables and base URLs. Fails if no request could leave a worker with this"
        " environment.",
        "Correct what is named.",
    ),
    CheckEntry(
        "secrets folder",
        "CALLGATE_WORKER__CREDENTIALS_DIR: whether it can be read, and whether each file has one usable key of a"
        " provider in the catalogue.",
        "Mount the folder so that the worker's user can read it; one key per file, named by its provider.",
    ),
    CheckEntry(
        "keys",
        "Whether there is an API key for any provider. Fails if there is none: a worker in this environment could"
        " send nothing. Keys are where the workers run, so run the doctor there.",
        "Put a key into the variable CALLGATE_WORKER__CREDENTIALS__PROVIDER, and restart the worker; or into the file"
        " PROVIDER of CALLGATE_WORKER__CREDENTIALS_DIR, which a running worker reads.",
    ),
    CheckEntry(
        "key of PROVIDER",
        "Whether the provider's own key is there and accepted, asked where its preset declares a free endpoint"
        " (`free_check`). Warns if it is missing or the provider does not answer; fails if it was refused.",
        "Put the right key into the worker's environment or secrets folder.",
    ),
    CheckEntry(
        "reachable",
        "Whether a connection can be opened (TCP, and TLS for https) from here to each provider that has a key or needs"
        " none, within five seconds. Nothing is sent. Left out with `--offline`, and where requests leave through a"
        " proxy. Warns if some cannot be reached; fails if none can.",
        "Check host and port, network, DNS and firewall from here to the provider, and the provider's status page.",
    ),
)


def todo_of(name: str) -> str:
    """What to do about a check; empty for one that is not in the table."""
    shown = f"{KEY_OF}PROVIDER" if name.startswith(KEY_OF) else name
    return next((entry.todo for entry in CHECKS if entry.name == shown), "")
