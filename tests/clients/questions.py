"""What the clients ask, and what the sandbox says to it."""

from typing import Any

FAULTS = (
    "status=400",
    "status=401",
    "status=402",
    "status=429,retry-after=0",
    "status=502",
    "moderation",
    "comments",
    "split-utf8",
    "mid-stream-error=2",
    "finish-error=2",
    "cut=2",
    "early-eof=2",
    "no-done",
)


def erring(fault: str) -> str:
    """A model that errs so."""
    assert fault in FAULTS, fault
    return f"sandbox/fault-{fault}"


TEXT = "Wie heißt du, 小さな鳥?"
"""An echo says it again, in more than one token and in more than one byte a letter."""
SAID = [{"role": "user", "content": TEXT}]

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SHOWN = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
    }
]

PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a place.", "parameters": PLACE},
}
ARGUMENTS = {"city": TEXT}
"""With which the sandbox calls it."""
