"""Servers of speech: one that recognises it, one that makes it."""

import base64
import struct

from tollgate.engines.commands.place import OFFLINE, Command, Place, devices
from tollgate.engines.schemas import Spec

WHISPER = ("faster-whisper-server",)
TTS = ("python3", "-m", "tollgate.speech")
RATE = 16_000


def whisper(spec: Spec, place: Place) -> Command:
    return Command(
        [*(place.program or WHISPER), place.model_path, *place.on_port(("--host", "--port")), *spec.arguments],
        spec.environment | devices(spec) | OFFLINE,
        probe={
            "method": "POST",
            "path": "/v1/audio/transcriptions",
            "form": {"model": spec.served_name, "response_format": "json"},
            "file": {"field": "file", "name": "silence.wav", "base64": base64.b64encode(silence()).decode()},
        },
    )


def tts(spec: Spec, place: Place) -> Command:
    listens = place.listens("--uds", ("--host", "--port"))
    return Command(
        [*(place.program or TTS), "--model", place.model_path, "--name", spec.served_name, *listens, *spec.arguments],
        spec.environment | devices(spec) | OFFLINE | {"TTS_API_KEY": place.secret},
        probe={
            "method": "POST",
            "path": "/v1/audio/speech",
            "json": {"model": spec.served_name, "input": "One.", "response_format": "wav"},
        },
    )


def silence() -> bytes:
    """A tenth of a second, as a WAV file."""
    samples = bytes(RATE // 10 * 2)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + len(samples), b"WAVE")
        + form
        + struct.pack("<4sI", b"data", len(samples))
        + samples
    )
