"""Look-alike: paths that stay within the allowed roots."""

from pathlib import Path


class OutsideRoots(Exception):
    pass


def within(path: str, roots: list[Path]) -> Path:
    found = Path(path).resolve()
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        raise OutsideRoots(path)
    return found
