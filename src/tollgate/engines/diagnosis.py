"""Look-alike: why an engine failed."""

import re
from typing import Any

from pydantic import BaseModel


class Diagnosis(BaseModel):
    rule: str
    title: str
    message: str
    fixes: list[str] = []
    severity: str = "error"
    error_type: str = "engine"
    retryable: bool = False


RULES = {
    "port_taken": ("ddress already in use|couldn't bind HTTP server socket", True),
    "bad_argument": ("invalid argument: ", False),
    "not_found": ("failed to open GGUF file", False),
    "bad_file": ("invalid magic characters", False),
}


def diagnose(log: str, exit_code: int | None) -> Diagnosis | None:
    for rule, (pattern, retryable) in RULES.items():
        if found := re.search(f".*(?:{pattern}).*", log):
            return Diagnosis(rule=rule, title=rule, message=found[0].strip(), retryable=retryable)
    return None


def summary(log: str) -> dict[str, Any]:
    return {}
