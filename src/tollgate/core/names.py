"""Names of models and the like: printable, without spaces, and not too long to store."""

from typing import Final, TypeGuard

LONGEST_NAME: Final = 256


def is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable() and " " not in value
