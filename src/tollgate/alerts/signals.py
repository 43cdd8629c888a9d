"""The register of signals, and of the rules that are on from the start: what each means, and what to do.

The rules themselves are rows. `supabase/schemas/16_alerts/defaults.sql` makes them, and a test compares the two.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Comparison = Literal["at_least", "below"]
Severity = Literal["info", "warning", "critical"]


class Rule(NamedTuple):
    title: str
    signal: str
    comparison: Comparison
    threshold: float
    clear_threshold: float | None
    for_seconds: int
    clear_seconds: int
    severity: Severity
    means: str
    look: str
    cause: str
    mend: str


HABIT: Final = "Left out below three times the habit of its last week."

SIGNALS: Final[Mapping[str, str]] = {
    "error_rate_percent": (
        "Of the newest 5,000 requests of the last 5 minutes, the share that failed: with a status from 500, or an "
        "answer that broke off. Of the installation and of each upstream with at least 20 of them. Calls of test keys "
        "do not count."
    ),
    "latency_p95_ms": "The 95th percentile of how long the same requests took, of at least 20 that did not fail.",
    "first_token_p95_ms": "The 95th percentile of how long at least 20 of them took until their first token.",
    "upstream_down": (
        "1 where the last two health checks of an upstream of your own, within a day, failed, else 0. "
        "`POST /admin/upstreams/refresh-health` makes them: let a scheduler ask every few minutes."
    ),
    "breaker_open": (
        "1 where the breaker of an upstream is open in one of the processes, or was in the last 10 minutes and no call "
        "was answered since; else 0. Not of the sandbox."
    ),
    "host_silent_seconds": "For how long the agent of a host has not called.",
    "catalog_age_seconds": "How old the list of models is in a process whose last refresh failed.",
    "openrouter_credit_nanos": "Our credit at OpenRouter. Needs OPENROUTER_MANAGEMENT_KEY.",
    "openrouter_days_left": "For how many days our credit at OpenRouter lasts at the cost of the last 24 hours. Needs "
    "OPENROUTER_MANAGEMENT_KEY.",
    "margin_percent": (
        "Charge less cost, as a share of the charge, in this clock hour and the one before: of the installation and "
        "of each model that cost at least 0.1 credits."
    ),
    "reconciliation_difference_ppm": "How far our cost of a day is from the vendor's, in parts per million. Needs "
    "OPENROUTER_MANAGEMENT_KEY.",
    "unsettled_requests": "Requests whose cost is unknown for more than 10 minutes.",
    "expired_holds": "Holds that the sweeper should have ended 10 minutes ago.",
    "quarantined_requests": "Requests of the last 24 hours whose usage made no sense.",
    "books_faults": "What the last audit of the books found. None before the first audit.",
    "database_answer_ms": "How long the database took for the last round of rules, as a process saw it.",
    "database_connections_percent": "The share of the database's connections that is in use.",
    "database_bytes": "The size of the database.",
    "database_transaction_seconds": "The age of the oldest transaction.",
    "days_since_verified_backup": (
        "For how many days no backup was verified and sound; where none ever was, since the first org was made."
    ),
    "process_memory_percent": "The memory that a process may use and does.",
    "process_disk_percent": "How full the disk of a process is.",
    "sweep_pause_seconds": "How long no sweep ran before this one.",
    "channel_failures": "How many attempts of a channel failed since one succeeded.",
    "org_spend_times_usual": (
        "How many times its usual spend an org spent in this clock hour or the one before. Usual is the third highest "
        "peak at this time of day in 15 days or the second highest at this hour of the week in four weeks, whichever "
        "is more, an hour before or after included; and at least its mean hour and 1 credit. "
        "Before an org has three days of use, the first a week ago, it is 20 credits; from its third day of use on, a "
        "day later, the most that it spent in an hour until then, and at least 3 credits. Of the 100 orgs and keys "
        "that spent most."
    ),
    "key_spend_times_usual": "The same of a key. A key without such days has what is usual for its org.",
    "balance_days_left": "For how many days an org's credits last at its spend since yesterday began.",
    "key_budget_percent": "How much of its budget a key has used, from 50.",
    "key_days_left": "In how many days a key expires, of those that had two weeks or more.",
    "key_new_networks": (
        "From how many networks that it was never used from before a key was used within an hour. Left out like "
        "`key_networks`, and in its first day."
    ),
    "key_networks": (
        "From how many networks that it was never used from before a key was used in 24 hours, from 5. Left out where "
        "it met a third as many on each day of the week before; a key may meet 50 a day in its first two days, and in "
        "its first week if it met five before."
    ),
    "refusals_in_hour": (
        "How often a key or an address was refused in this clock hour: unknown or ended keys, or a network that is "
        "not allowed."
    ),
    "limits_hit_in_hour": "How often a key hit a limit in this clock hour.",
    "stuffing_addresses": (
        "From how many addresses somebody failed to sign in or sent an unknown key, with at least as many different "
        "keys and emails, in this clock hour and the one before. " + HABIT
    ),
    "missing_ids": (
        "How many different ids and models that do not exist a key, or an address without one, asked for in this clock "
        "hour and the one before, but for ids that were made here once. " + HABIT
    ),
    "models_read": (
        "How many different models, and further pages of the list, a key read in this clock hour and the one before, "
        "but for its first day. " + HABIT
    ),
    "models_asked": (
        "How many different models a key asked in paid calls in this clock hour and the one before, from 20. Left out "
        "where it asked half as many on a day of the last week; a key that was not used then may ask 50."
    ),
    "idempotency_keys_reused": (
        "How often a key sent an Idempotency-Key again with another body in this clock hour and the one before."
    ),
    "idempotency_networks": (
        "From how many networks one request of a key was repeated with its Idempotency-Key in this clock hour and the "
        "one before."
    ),
    "security_events": "Open security events of the last hour of a kind that has no signal of its own.",
}
"""What each reading says, and of what."""

RULES: Final[Mapping[str, Rule]] = {
    "error_rate": Rule(
        "Many requests fail",
        "error_rate_percent",
        "at_least",
        10,
        5,
        120,
        300,
        "critical",
        "A tenth of the requests fails.",
        "`GET /admin/logs?status=502` names the errors; `GET /admin/upstreams` says which upstream is open or down.",
        "An upstream is down, or refuses our key; a deployment is faulty; the database does not answer.",
        "Disable the upstream or its routes, so that others serve the models; replace the key; go back to the "
        "previous version.",
    ),
    "latency": Rule(
        "Requests take long",
        "latency_p95_ms",
        "at_least",
        120000,
        90000,
        300,
        300,
        "warning",
        "One request in twenty takes two minutes.",
        "`GET /admin/monitor` has latencies by upstream.",
        "An upstream is overloaded, or people ask for long answers.",
        "Give the models more routes, or set `concurrency` of the upstream. If long answers are usual here, raise "
        "the threshold.",
    ),
    "first_token": Rule(
        "First tokens take long",
        "first_token_p95_ms",
        "at_least",
        20000,
        15000,
        300,
        300,
        "warning",
        "One stream in twenty waits 20 seconds for its first token.",
        "`GET /admin/monitor`, and the queue of your own servers: `GET /admin/system/gpus`.",
        "A queue at an upstream, or a model that is being loaded.",
        "Add a replica, or keep the model loaded.",
    ),
    "upstream_down": Rule(
        "An upstream is down",
        "upstream_down",
        "at_least",
        1,
        None,
        0,
        60,
        "critical",
        "Two health checks in a row of an upstream of your own failed.",
        "`GET /admin/upstreams/{id}` has the last error.",
        "The server or the network between is down, or its key is wrong.",
        "Start it, then `POST /admin/upstreams/refresh-health`.",
    ),
    "breaker_open": Rule(
        "An upstream's breaker is open",
        "breaker_open",
        "at_least",
        1,
        None,
        60,
        120,
        "warning",
        "An upstream failed so often that a process no longer calls it.",
        "`GET /admin/upstreams` has `last_error`.",
        "As for `error_rate`.",
        "The breaker closes by itself once a call succeeds. Disable the upstream if it will be long.",
    ),
    "host_silent": Rule(
        "A host is silent",
        "host_silent_seconds",
        "at_least",
        120,
        60,
        60,
        60,
        "critical",
        "The agent of a host has not called for two minutes, nor in the minute after them. A Tollgate that was down "
        "itself waits for that minute too.",
        "`GET /admin/hosts/{host_id}`, and the agent's log on the host.",
        "The host or its network is down, or the agent has ended.",
        "Start the agent. Cordon the host, or retire it if it is gone for good.",
    ),
    "catalog_stale": Rule(
        "The list of models is old",
        "catalog_age_seconds",
        "at_least",
        21600,
        3600,
        0,
        0,
        "warning",
        "OpenRouter's list of models could not be read for six hours.",
        "`GET /metrics` and the log `catalog_not_refreshed` have the reason.",
        "OpenRouter does not answer from here, or OPENROUTER_BASE_URL is wrong.",
        "Mend the network, then `POST /admin/refresh-models`.",
    ),
    "openrouter_credit": Rule(
        "Credit at OpenRouter is low",
        "openrouter_days_left",
        "below",
        3,
        5,
        0,
        0,
        "critical",
        "At today's cost, our credit at OpenRouter ends within three days. Then OpenRouter refuses all calls.",
        "`GET /admin/monitor` has `openrouter`.",
        "Usage grew, or nobody bought credit.",
        "Buy credit at OpenRouter, or set its auto top-up.",
    ),
    "margin_negative": Rule(
        "A model costs more than it earns",
        "margin_percent",
        "below",
        0,
        None,
        600,
        600,
        "critical",
        "We pay more for a model, or in all, than we charge.",
        "`GET /admin/usage/aggregate?by=model` has cost and charge.",
        "The price of a route of your own is too low, a markup is negative in effect, or many charges are estimated.",
        "Correct the route's pricing or the markup of the plan.",
    ),
    "reconciliation": Rule(
        "Our cost differs from the vendor's",
        "reconciliation_difference_ppm",
        "at_least",
        1000,
        None,
        0,
        0,
        "critical",
        "For a day, our books have another cost than OpenRouter's own statement.",
        "`python -m tollgate reconcile` lists the differences.",
        "Lost settlements, estimates, or a correction by the vendor.",
        "See the list; refund or adjust what was charged wrongly.",
    ),
    "unsettled": Rule(
        "Requests stay unsettled",
        "unsettled_requests",
        "at_least",
        100,
        50,
        600,
        300,
        "warning",
        "The cost of many requests is still unknown, and their credits are held.",
        "`GET /admin/logs?state=unsettled`.",
        "OpenRouter does not say what generations cost, or the sweeper does not keep up.",
        "They are charged by an estimate in the end. Run `python -m tollgate sweep` if no sweeper runs.",
    ),
    "expired_holds": Rule(
        "Holds do not end",
        "expired_holds",
        "at_least",
        1,
        None,
        300,
        60,
        "critical",
        "Credits are held for requests that ended long ago.",
        "`GET /admin/overview` has `expired_holds`.",
        "No sweeper ran, or it fails: see its log `sweep_failed`.",
        "Run `python -m tollgate sweep`, and see that a scheduler calls `/internal/sweep`.",
    ),
    "quarantined": Rule(
        "Usage makes no sense",
        "quarantined_requests",
        "at_least",
        1,
        None,
        0,
        0,
        "critical",
        "An upstream reported usage that cannot be true, so the hold was charged.",
        "`GET /admin/security-events?kind=usage_quarantined` names a request.",
        "An upstream counts wrongly, or lies.",
        "Look at the request, refund the difference, and disable the upstream.",
    ),
    "books": Rule(
        "The books do not agree",
        "books_faults",
        "at_least",
        1,
        None,
        0,
        0,
        "critical",
        "The last audit found faults.",
        "`python -m tollgate audit` names the rows.",
        "Rows were changed by hand, or restored in part.",
        "Do not correct rows by hand. Restore, or write adjustments; then run the audit again, which resolves the "
        "alert.",
    ),
    "database_slow": Rule(
        "The database is slow",
        "database_answer_ms",
        "at_least",
        2000,
        1000,
        120,
        300,
        "warning",
        "The database took two seconds for a round of rules.",
        "`GET /admin/system/database` has the slowest functions and sizes.",
        "Too little memory, a missing vacuum, or a neighbour.",
        "See the advice on indexes there; give the database more memory.",
    ),
    "database_connections": Rule(
        "Connections to the database run out",
        "database_connections_percent",
        "at_least",
        85,
        75,
        120,
        300,
        "critical",
        "Few connections are left; the next process may get none.",
        "`GET /admin/system/database` has `connections`.",
        "More processes than connections, or a pool that is too large.",
        "Put a pooler before the database, or lower DATABASE_POOL_SIZE.",
    ),
    "database_size": Rule(
        "The database is large",
        "database_bytes",
        "at_least",
        1_000_000_000_000,
        900_000_000_000,
        0,
        0,
        "warning",
        "The database has reached a terabyte. Set the threshold to what your disk holds.",
        "`GET /admin/system/database` has `sizes`.",
        "Rows of requests and stored contents.",
        "Set REQUEST_RETENTION_DAYS and LOG_CONTENT_DAYS.",
    ),
    "database_transaction": Rule(
        "A transaction runs for an hour",
        "database_transaction_seconds",
        "at_least",
        3600,
        None,
        0,
        0,
        "warning",
        "A transaction is open that keeps old rows from being vacuumed.",
        "`GET /admin/system/database` has `oldest_transaction`.",
        "A session that somebody left open, or a dump.",
        "End it with `select pg_terminate_backend(<pid>)`.",
    ),
    "backup_old": Rule(
        "No backup was verified",
        "days_since_verified_backup",
        "at_least",
        7,
        None,
        0,
        0,
        "critical",
        "For a week no backup was restored on trial, or none ever was.",
        "`python -m tollgate backup verify` says what it finds.",
        "No job makes backups, it does not run, or a backup is damaged.",
        "Create a backup and verify it, or verify one that your host made. Where nothing can be lost, switch this rule "
        "off.",
    ),
    "process_memory": Rule(
        "A process runs out of memory",
        "process_memory_percent",
        "at_least",
        90,
        80,
        300,
        300,
        "warning",
        "A process uses nine tenths of its memory.",
        "`GET /admin/system/host/summary`.",
        "Large bodies, many streams, or a leak.",
        "Restart it, give it more memory, or lower MAX_UNFINISHED_BYTES.",
    ),
    "process_disk": Rule(
        "A disk is full",
        "process_disk_percent",
        "at_least",
        90,
        85,
        0,
        300,
        "critical",
        "The disk of a process is full to nine tenths.",
        "`GET /admin/system/host/summary`.",
        "Logs, temporary files of uploads, or the embedded Postgres.",
        "Free space, or enlarge the disk.",
    ),
    "sweeper_paused": Rule(
        "No sweep ran",
        "sweep_pause_seconds",
        "at_least",
        600,
        None,
        0,
        0,
        "warning",
        "For ten minutes nothing was swept, and no rule was evaluated. It is told by the sweep that follows; that "
        "none follows can only be seen from outside.",
        "The scheduler's log, and `GET /health` of the server.",
        "The scheduler does not call `/internal/sweep`, or no server ran.",
        "Correct the scheduler. Have something outside ask `/internal/sweep` or alert on Prometheus' `up`.",
    ),
    "channel_failing": Rule(
        "A channel fails",
        "channel_failures",
        "at_least",
        3,
        1,
        0,
        0,
        "warning",
        "Alerts cannot be told over a channel.",
        "`GET /admin/alerts/channels/{id}` has `last_error`, `GET /admin/alerts/deliveries?state=failed` what was "
        "not told.",
        "The receiver is down, its address or secret has changed, or VAULT_KEY is another.",
        "Correct the channel, test it, and resend what failed.",
    ),
    "spend_of_org": Rule(
        "An org spends far more than usual",
        "org_spend_times_usual",
        "at_least",
        5,
        2,
        0,
        600,
        "warning",
        "An org spent five times what it usually spends at this time of day.",
        "`GET /admin/usage/aggregate?org_id=…&by=key`.",
        "A new product of theirs, a loop, or a stolen key.",
        "Ask them. Set a budget or a limit of the key, or disable it.",
    ),
    "spend_of_key": Rule(
        "A key spends far more than usual",
        "key_spend_times_usual",
        "at_least",
        10,
        3,
        0,
        600,
        "warning",
        "A key spent ten times what it usually spends at this time of day.",
        "`GET /admin/usage?key_id=…`.",
        "As for `spend_of_org`.",
        "As for `spend_of_org`.",
    ),
    "balance_low": Rule(
        "An org's balance is low",
        "balance_days_left",
        "below",
        1,
        2,
        0,
        0,
        "info",
        "The credits of an org end within a day at its spend. The org's own webhooks are told `balance.low`.",
        "`GET /admin/orgs/{org_id}`.",
        "They use more than they buy.",
        "They buy credits, or you grant some.",
    ),
    "key_budget_near": Rule(
        "A key is near its budget",
        "key_budget_percent",
        "at_least",
        90,
        None,
        0,
        0,
        "info",
        "A key has used nine tenths of its budget. The org's own webhooks are told `key.budget_near`.",
        "`GET /admin/keys/{key_id}`.",
        "Usage.",
        "Raise the budget, or wait for its next period.",
    ),
    "key_budget_reached": Rule(
        "A key has used its budget",
        "key_budget_percent",
        "at_least",
        100,
        None,
        0,
        0,
        "info",
        "A key is refused until its budget's next period. The org's own webhooks are told `key.budget_reached`.",
        "`GET /admin/keys/{key_id}`.",
        "Usage.",
        "Raise the budget, or wait for its next period.",
    ),
    "key_expiring": Rule(
        "A key expires soon",
        "key_days_left",
        "below",
        7,
        None,
        0,
        0,
        "info",
        "A key ends within a week. The org's own webhooks are told `key.expiring`.",
        "`GET /admin/keys/{key_id}`.",
        "It was made with an end.",
        "Rotate it, or change `expires_at`.",
    ),
    "key_new_networks": Rule(
        "A key is used from new networks",
        "key_new_networks",
        "at_least",
        5,
        None,
        0,
        0,
        "warning",
        "A key was used within an hour from five networks that it was never used from before, and its day is unlike "
        "its week.",
        "`GET /admin/security-events?key_id=…`.",
        "A move to another host, or a shared or stolen key.",
        "Ask its owner. Set `ip_allowlist`, or rotate the key.",
    ),
    "key_networks": Rule(
        "A key is used from many networks",
        "key_networks",
        "at_least",
        20,
        10,
        0,
        600,
        "warning",
        "A key was used in a day from 20 networks that it was never used from before, and that is unlike its week.",
        "`GET /admin/security-events?kind=many_networks`.",
        "A key within an app that people install, or one that is shared.",
        "Give each user a key. Set `ip_allowlist`, or rotate the key.",
    ),
    "refused_address": Rule(
        "An address is refused again and again",
        "refusals_in_hour",
        "at_least",
        100,
        50,
        0,
        3600,
        "warning",
        "A hundred requests of one address or key were refused within an hour.",
        "`GET /admin/security-events?kind=authentication_failed`.",
        "A client with an old key, or somebody who tries keys.",
        "Tell the client, or block the address before Tollgate.",
    ),
    "limits_hit": Rule(
        "A key hits its limits again and again",
        "limits_hit_in_hour",
        "at_least",
        1000,
        500,
        0,
        3600,
        "info",
        "A thousand requests of a key were refused for a limit within an hour.",
        "`GET /admin/usage/refused?key_id=…`.",
        "A client that does not wait as `Retry-After` says, or limits that are too low.",
        "Talk to its owner, or raise the limits.",
    ),
    "credential_stuffing": Rule(
        "Many addresses try keys or passwords",
        "stuffing_addresses",
        "at_least",
        40,
        20,
        0,
        0,
        "critical",
        "Within two hours, 40 addresses failed to authenticate with 40 different keys or emails: somebody tries a list "
        "of leaked ones, spread over addresses so that none is refused often.",
        "`GET /admin/security-events?kind=authentication_failed`; `GET /admin/audit-logs?action=session.started` has "
        "the sign-ins that worked meanwhile.",
        "A list of leaked passwords or keys. A new sign-in page of yours that sends wrong ones looks the same.",
        "Block the networks before Tollgate, and ask users who signed in meanwhile to change their passwords.",
    ),
    "ids_enumerated": Rule(
        "Somebody tries ids",
        "missing_ids",
        "at_least",
        60,
        30,
        0,
        0,
        "warning",
        "A key, or an address without one, asked for 60 different ids or models that do not exist. Asking again for "
        "one counts once.",
        "The log's lines with `missing` name the ids; `GET /admin/keys/{key_id}` says whose key it is.",
        "Somebody looks for what belongs to others, or a job works through a list that is not Tollgate's.",
        "Ask its owner, or disable the key. Ids cannot be guessed, and another org's are answered like missing ones.",
    ),
    "models_read_widely": Rule(
        "A key reads the models one by one",
        "models_read",
        "at_least",
        100,
        50,
        0,
        0,
        "warning",
        "A key read a hundred models, or pages of the list, one by one. The list itself, in one page, does not count.",
        "The log's lines with `model_read`; `GET /admin/keys/{key_id}` says whose key it is.",
        "Somebody copies the list with its prices, or a tool that does not know `GET /v1/models`.",
        "Show its owner `GET /v1/models?limit=1000`, or take the scope `models` from the key.",
    ),
    "models_asked_widely": Rule(
        "A key asks very many models",
        "models_asked",
        "at_least",
        40,
        30,
        0,
        0,
        "warning",
        "A key asked 40 different models in paid calls, and usually asks few.",
        "`GET /admin/usage/aggregate?key_id=…&by=model`.",
        "Answers are collected from all models, the key is resold, or an evaluation runs.",
        "Ask its owner. Set `allowed_models` or a budget of the key.",
    ),
    "idempotency_keys_reused": Rule(
        "Idempotency-Keys are reused with other bodies",
        "idempotency_keys_reused",
        "at_least",
        20,
        10,
        0,
        0,
        "warning",
        "A key sent an Idempotency-Key again with another body, 20 times within two hours. Each was refused and cost "
        "nothing. A retry has the same body and does not count.",
        "The log's lines with `error_code` `idempotency_key_reused`; `GET /admin/keys/{key_id}` says whose key it is.",
        "A client that sends one constant, or somebody who tries the Idempotency-Keys of others in the org for their "
        "answers.",
        "Tell its owner to make a new Idempotency-Key for each request; otherwise rotate the key.",
    ),
    "idempotency_key_shared": Rule(
        "One request is repeated from many networks",
        "idempotency_networks",
        "at_least",
        4,
        None,
        0,
        0,
        "critical",
        "A request was repeated, with its Idempotency-Key, from four networks within two hours. Retries come from the "
        "client that asked.",
        "The log's lines with `replayed`; `GET /admin/security-events?key_id=…`.",
        "A request with its key was copied, as from a log, and is replayed for its answer.",
        "Rotate the key, and find where requests with their headers were kept.",
    ),
    "security_event": Rule(
        "A security event is open",
        "security_events",
        "at_least",
        1,
        None,
        0,
        0,
        "warning",
        "Something happened that an operator should look at; the subject is its kind.",
        "`GET /admin/security-events?acknowledged=false`.",
        "See the event.",
        "Acknowledge the event, which resolves the alert.",
    ),
}
"""Those that are on from the start."""
