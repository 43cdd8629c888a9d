"""Errors of database calls, for both doors."""

import json
from collections.abc import Mapping
from typing import Any

from tollgate.core.errors import DatabaseUnavailable, InternalError, TollgateError, from_code
from tollgate.process import logs

log = logs.source("database")

REFUSAL = "PT"
SQLSTATE_LENGTH = 5
OURS_TO_MEND = ("22", "23", "42", "P0", "XX", "21", "0A")
"""Classes of sqlstates that mean a defect of ours rather than an outage."""

NOT_MIGRATED = ("42883", "3F000", "PGRST202")
NOT_LET_IN = ("42501",)


def of_state(state: str, message: str, detail: str | None) -> TollgateError:
    """The error for an sqlstate or a code of PostgREST's own (PGRST…)."""
    if state.startswith(REFUSAL):
        refusal = from_code(message, _facts(detail))
        if refusal.code != message:
            log.error("unknown_refusal", state=state, code=message)
        return refusal
    if state in NOT_MIGRATED:
        return unavailable(state, f"{message} (is the database migrated? run `make migrate`)")
    if len(state) == SQLSTATE_LENGTH and state.startswith(OURS_TO_MEND) and state not in NOT_LET_IN:
        log.error("database_fault", state=state, fault=message)
        return InternalError()
    return unavailable(state, message)


def unavailable(state: str, cause: str) -> DatabaseUnavailable:
    log.error("database_unavailable", state=state, cause=cause)
    return DatabaseUnavailable()


def _facts(detail: str | None) -> Mapping[str, Any]:
    try:
        facts = json.loads(detail or "{}")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
