"""What becomes of each member of a request: translated, ignored or refused. Members without a treatment are refused, so
nothing is dropped that these tables do not name. The documentation is made from the same tables."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn

from tollgate.core.errors import BadRequest


class Treatment(NamedTuple):
    way: Literal["translated", "ignored", "refused"]
    how: str
    """What it becomes, or why it is ignored or refused."""
    harmless: tuple[Any, ...] = ()
    """The values that are not refused."""


Table = Mapping[str, Treatment]


def translated(how: str) -> Treatment:
    return Treatment("translated", how)


def ignored(why: str) -> Treatment:
    return Treatment("ignored", why)


def refused(why: str, *harmless: Any) -> Treatment:
    return Treatment("refused", why, harmless)


def check(given: Mapping[str, Any], table: Table, path: str = "") -> None:
    """Refuses the members that this table refuses or does not know. null counts as absent."""
    for name, value in given.items():
        param = f"{path}.{name}" if path else name
        treatment = table.get(name)
        if value is None or (treatment and treatment.way != "refused") or (treatment and value in treatment.harmless):
            continue
        refuse(param, treatment.how if treatment else "It is not known here.")


def chosen(tables: Mapping[str, Table], kind: object, path: str) -> Table:
    """The table of this type of object."""
    if not isinstance(kind, str) or kind not in tables:
        refuse(f"{path}.type", f"Known are {_list(tables)}.")
    return tables[kind]


def refuse(param: str, why: str) -> NoReturn:
    raise BadRequest(
        f"{param}: the server of this model has chat completions only, and this cannot be translated. {why} "
        "Remove it, or choose another model.",
        param=param,
    )


def malformed(param: str, expected: str) -> NoReturn:
    raise BadRequest(f"{param}: send {expected}.", param=param)


def _list(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
