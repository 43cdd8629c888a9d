from tollgate.engines.commands.place import OFFLINE, Command, Place, devices, one_token
from tollgate.engines.commands.sound import tts, whisper
from tollgate.engines.schemas import Spec


def build(spec: Spec, place: Place) -> Command:
    """A program of the host's own list, with the words that it names filled in. It should read its key from `API_KEY`."""
    if not place.program:
        raise ValueError(f"This host has no command named {spec.custom_command!r}.")
    known = {"{model}": place.model_path, "{name}": spec.served_name}
    known |= {"{socket}": place.socket or "", "{port}": "" if place.port is None else str(place.port)}
    return Command(
        [*(filled(word, known) for word in place.program), *spec.arguments],
        spec.environment | devices(spec) | OFFLINE | {"API_KEY": place.secret},
        probe=PROBES[spec.kind](spec),
    )


def filled(word: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        word = word.replace(name, value)
    return word


PROBES = {
    "text": one_token,
    "transcription": lambda spec: whisper(spec, Place("", port=0)).probe,
    "speech": lambda spec: tts(spec, Place("", port=0)).probe,
}
