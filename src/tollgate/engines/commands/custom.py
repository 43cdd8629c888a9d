from collections.abc import Callable, Mapping
from typing import Any, Final

from tollgate.engines.commands.place import OFFLINE, Command, Place, devices
from tollgate.engines.commands.sound import tts, whisper
from tollgate.engines.schemas import Kind, Spec


def build(spec: Spec, place: Place) -> Command:
    """A program of the host's own list, with `{model}` and the like filled in. Its key is in `ENGINE_API_KEY`."""
    if not place.program:
        raise ValueError(f"This host has no command named {spec.custom_command!r}.")
    known = {"{model}": place.model_path, "{name}": spec.served_name}
    known |= {"{socket}": place.socket or "", "{port}": "" if place.port is None else str(place.port)}
    return Command(
        [*(filled(word, known) for word in place.program), *spec.arguments],
        spec.environment | devices(spec) | OFFLINE | {"ENGINE_API_KEY": place.secret},
        probe=PROBES[spec.kind](spec),
    )


def filled(word: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        word = word.replace(name, value)
    return word


def chat(spec: Spec) -> dict[str, Any]:
    """What every server that is like OpenAI's has."""
    asked = {"model": spec.served_name, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
    return {"method": "POST", "path": "/v1/chat/completions", "json": asked}


PROBES: Final[Mapping[Kind, Callable[[Spec], dict[str, Any]]]] = {
    "text": chat,
    "transcription": lambda spec: whisper(spec, Place("", port=0)).probe,
    "speech": lambda spec: tts(spec, Place("", port=0)).probe,
}
