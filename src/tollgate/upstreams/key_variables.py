"""Which environment variables may hold the key of a server of ours.

An operator writes the name of one into a row, and its value goes to an address that the same operator chose. So none of
our own ever goes there, and over HTTP only those can be named that whoever runs the process has set apart.
"""

import re
from collections.abc import Mapping
from typing import Final

from tollgate.settings import Settings

OFFERED: Final = r"^UPSTREAM_[A-Z0-9_]{1,119}$"
OURS: Final = frozenset(
    {str(field.alias or name) for name, field in Settings.model_fields.items()} | {"SUPABASE_SERVICE_ROLE_KEY"}
)


def is_offered(name: str) -> bool:
    """Whether an operator may name it over HTTP."""
    return re.fullmatch(OFFERED, name) is not None and name not in OURS


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in OURS}
