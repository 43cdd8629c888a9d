"""Which environment variables may hold the key of a server of ours.

An operator writes the name of one into a row, and its value goes to an address that the same operator chose. So none of
our own ever goes there, and over HTTP only those can be named that whoever runs the process has set apart.
"""

import re
from collections.abc import Mapping
from typing import Final

from tollgate.core import host_keys
from tollgate.core.models import Upstream
from tollgate.settings import Settings
from tollgate.upstreams import rules

OFFERED: Final = r"^UPSTREAM_[A-Z0-9_]{1,119}$"
OURS: Final = frozenset(
    {str(field.alias or name) for name, field in Settings.model_fields.items()} | {"SUPABASE_SERVICE_ROLE_KEY"}
)


OF_HOSTS: Final = "AGENT_KEY"
"""What the keys of hosts are made from."""


def name_of(upstream: Upstream) -> str | None:
    """The variable that the key of an upstream comes from; None where it needs none."""
    return OF_HOSTS if upstream.host_key else upstream.secret_name


def key_of(upstream: Upstream, secrets: Mapping[str, str]) -> str | None:
    """The key of an upstream; None where its variable is not set."""
    secret = rules.fit_secret(secrets.get(name_of(upstream) or ""))
    return host_keys.made(secret, upstream.host_key) if secret and upstream.host_key else secret


def is_offered(name: str) -> bool:
    """Whether an operator may name it over HTTP."""
    return re.fullmatch(OFFERED, name) is not None and name not in OURS


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in OURS}
