"""What a request wants done: by which model, with which faults."""

from dataclasses import dataclass
from typing import Any

from tollgate.sandbox.catalog import Model
from tollgate.sandbox.faults import Faults

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Job:
    listed: Model
    """The model that was asked for."""
    model: Model
    """The model that answers, and is billed."""
    faults: Faults
    parameters: dict[str, Any]
    """The request's body, without what may be long."""
    headers: RawHeaders

    def header(self, wanted: str) -> str:
        return next((value.decode("latin-1") for name, value in self.headers if name == wanted.encode()), "")
