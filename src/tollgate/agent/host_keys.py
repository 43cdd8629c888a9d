"""The keys of the host, as the control plane gives them. The first is sent with each sync. They all open the ingress,
so that nobody is locked out while the AGENT_KEY of the server is rotated."""

import hmac
from collections.abc import Callable, Sequence
from typing import Any, Final

from tollgate.agent.data_directory import DataDirectory
from tollgate.process import logs

IDENTITY: Final = "identity.json"

log = logs.source("application")


class HostKeys:
    def __init__(
        self, directory: DataDirectory, identity: dict[str, Any], conceal: Callable[[list[str]], None] = lambda _: None
    ) -> None:
        """`conceal` keeps keys out of the log."""
        self._directory = directory
        self._identity = identity
        self._conceal = conceal
        self.all: list[str] = [identity["host_key"], *identity.get("further_keys", [])]
        conceal(self.all)

    @property
    def current(self) -> str:
        return self.all[0]

    def open_to(self, authorization: bytes) -> bool:
        """Another host's key is refused: each host has keys of its own."""
        return any(hmac.compare_digest(authorization, b"Bearer " + key.encode()) for key in self.all)

    def take(self, keys: Sequence[str]) -> bool:
        """Whether they are others than before. They are on disk before they count, and are told again with the next
        sync. A server that tells none has not changed them."""
        if not keys or list(keys) == self.all:
            return False
        identity = {**self._identity, "host_key": keys[0], "further_keys": list(keys[1:])}
        try:
            self._directory.write(IDENTITY, identity)
        except OSError as error:
            log.error("state_not_written", error=error.strerror)
            return False
        self._identity, self.all[:] = identity, keys
        self._conceal(self.all)
        return True
