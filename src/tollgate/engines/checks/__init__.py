"""What is wrong or noteworthy about a spec, before it is started. The agent asks the same again, with its own lists."""

from collections.abc import Iterable
from typing import Any

from tollgate.engines.checks import flags, host, model
from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Capabilities, Spec, Warning

__all__ = ["check", "is_startable"]


def check(spec: Spec, facts: Facts | None, capabilities: Capabilities | dict[str, Any] | None) -> list[Warning]:
    """Errors first."""
    known = Capabilities.of(capabilities)
    found = [*flags.check(spec, known), *model.check(spec, facts), *host.check(spec, facts, known)]
    return sorted(found, key=lambda warning: ("error", "warning", "info").index(warning.severity))


def is_startable(found: Iterable[Warning]) -> bool:
    return all(warning.severity != "error" for warning in found)
