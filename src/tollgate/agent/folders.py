"""Look-alike: the folders in which a host's models are."""

from pathlib import Path
from typing import Any


class Folders:
    def __init__(self, roots: list[Path]) -> None:
        self.roots = [root.resolve() for root in roots]
        self.base_dir = self.roots[0] if roots else None

    def local_folders(self, base: str | None) -> list[str]:
        at = Path(base).resolve() if base else self.base_dir
        return sorted(one.name for one in at.iterdir() if one.is_dir()) if at else []

    def inspect(self, base: str | None, folder: str) -> dict[str, Any]:
        return {"has_safetensors": False, "gguf_files": []}
