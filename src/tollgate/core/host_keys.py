"""The keys of hosts. A key is made from a secret of the server, so nothing that opens a host is stored."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from tollgate.core.errors import HostKeyInvalid

_KEY: Final = re.compile(r"tgh_(hst_[a-z0-9]{1,64})_([0-9]{1,9})_[0-9a-f]{64}")


class HostKey(NamedTuple):
    """Which key it is, without its secret part."""

    host_id: str
    generation: int
    """Only the last key of a host opens anything."""


def made(agent_key: str, key: HostKey) -> str:
    """The key itself: what an agent sends to Tollgate, and Tollgate to the ingress."""
    said = f"{key.host_id}:{key.generation}"
    mark = hmac.new(agent_key.encode(), said.encode(), hashlib.sha256).hexdigest()
    return f"tgh_{key.host_id}_{key.generation}_{mark}"


def read(agent_keys: Sequence[str], text: str) -> HostKey:
    """Raises HostKeyInvalid for what was made with none of these secrets. The database knows whether it is the last
    one."""
    found = _KEY.fullmatch(text)
    if found is None:
        raise HostKeyInvalid
    key = HostKey(found[1], int(found[2]))
    if not any(hmac.compare_digest(made(agent_key, key), text) for agent_key in agent_keys):
        raise HostKeyInvalid
    return key
