"""Which paths of a host an operator of Tollgate may name: those inside the roots of the agent's own command line."""

from collections.abc import Iterable
from pathlib import Path


class OutsideRoots(ValueError):
    """The message names the path as it was given: where a link leads is not told."""

    def __init__(self, given: object) -> None:
        super().__init__(f"{given} is not inside the folders that this host allows (--base-dir, --allow-root).")


def within(path: str | Path, roots: Iterable[Path]) -> Path:
    """The real path, with links and `..` followed, if it is inside one of the roots."""
    try:
        found = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):
        raise OutsideRoots(path) from None
    if not Path(path).is_absolute() or not any(found.is_relative_to(root.resolve()) for root in roots):
        raise OutsideRoots(path)
    return found


def child(name: str, folder: Path, roots: Iterable[Path]) -> Path:
    """A file or folder of `folder`, by a relative path."""
    if not name or Path(name).is_absolute():
        raise OutsideRoots(name)
    return within(folder / name, roots)
