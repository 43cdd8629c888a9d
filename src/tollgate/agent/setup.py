"""What all deployments of a host share: its directory, its programs, and what its owner allows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tollgate.agent.claims import Claim, Gpu
from tollgate.agent.containers import Containers
from tollgate.agent.data_directory import DataDirectory
from tollgate.agent.downloads import Downloads
from tollgate.agent.folders import Folders
from tollgate.agent.hub import ADDRESS
from tollgate.core.redaction import Redactor
from tollgate.process.clock import Monotonic, monotonic


@dataclass
class Setup:
    directory: DataDirectory
    downloads: Downloads
    folders: Folders
    capabilities: Callable[[], dict[str, Any]]
    """As the engines' checks read them."""
    gpus: Callable[[], Sequence[Gpu]] = tuple
    containers: Containers | None = None
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The host's own commands, by name."""
    hub_tokens: dict[str, str] = field(default_factory=dict)
    """By deployment, in memory only."""
    secrets: Sequence[str] = ()
    hub: str = ADDRESS
    clock: Monotonic = monotonic

    def redactor(self, *more: str) -> Redactor:
        return Redactor([*self.secrets, *self.hub_tokens.values(), *more])

    def has_free_memory(self, claim: Claim | None) -> bool:
        """Whether what an engine claimed is free again."""
        claimed = set(claim.gpus) if claim else set[int]()
        return all(
            gpu.total_bytes - gpu.used_bytes >= claim.bytes_of_each
            for gpu in self.gpus()
            if claim and gpu.index in claimed
        )
