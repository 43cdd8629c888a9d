"""Reads the arguments of a spec as flags with their values."""

import re
from collections.abc import Iterator

_FLAG = re.compile(r"-{1,2}[A-Za-z]")


def flags_of(arguments: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with its values. Words before the first flag have the flag ''."""
    flag, values = "", []
    for word in arguments:
        if not _FLAG.match(word):
            values.append(word)
            continue
        if flag or values:
            yield flag, values
        flag, equals, value = word.partition("=")
        values = [value] if equals else []
    if flag or values:
        yield flag, values


def value_of(arguments: list[str], *flags: str) -> int | None:
    """The number that a flag has."""
    for flag, values in flags_of(arguments):
        if flag in flags and values and values[0].isdigit():
            return int(values[0])
    return None
